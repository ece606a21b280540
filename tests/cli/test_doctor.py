import json

import pytest
from huggingface_hub.utils import httpx

from saelab.cli import doctor


def test_json_lists_what_a_person_would_ask_for(capsys, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    doctor.doctor(as_json=True)
    names = {finding["name"] for finding in json.loads(capsys.readouterr().out)}
    assert {"saelab", "torch", "transformer-lens", "threads", "kernels", "memory", "disk", "hub"} <= names


def test_offline_is_respected(monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(httpx, "head", lambda *a, **k: pytest.fail("asked the Hub although offline"))
    assert "not asked" in doctor._hub().value


def test_an_unreachable_hub_is_said_not_raised(monkeypatch) -> None:
    def refuse(*args, **kwargs):
        raise httpx.ConnectError("no route")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(httpx, "head", refuse)
    assert doctor._hub().value.startswith("not reachable (ConnectError)")


def test_a_token_is_never_printed(monkeypatch, capsys) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(httpx, "head", lambda *a, **k: None)
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    doctor.doctor()
    out = capsys.readouterr().out
    assert "signed in" in out
    assert "verysecret" not in out


def test_missing_pieces_come_with_advice(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(doctor, "bundled", lambda name: tmp_path / name)
    findings = list(doctor._bundle())
    assert len(findings) == 4
    assert all("install it again" in finding.advice for finding in findings)
