"""What was imported is taken out of the garbage collector's sight, once."""

from __future__ import annotations

import gc
import sys
from types import ModuleType

import pytest

from app import collector


def test_it_collects_where_modules_have_come_and_not_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(gc, "collect", lambda: done.append("collected"))
    monkeypatch.setattr(gc, "freeze", lambda: done.append("frozen"))
    monkeypatch.setattr(collector, "_known", 0)
    collector.settle()
    collector.settle()
    assert done == ["collected", "frozen"]
    for number in range(collector.FEW + 1):
        monkeypatch.setitem(sys.modules, f"made_up_{number}", ModuleType("made_up"))
    collector.settle()
    assert done == ["collected", "frozen"] * 2
