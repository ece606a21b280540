"""Tests beside other tools: `make test-peers` runs them in .venv-peers; anywhere else they are skipped."""

from __future__ import annotations

import importlib
import os
import warnings
from importlib.util import find_spec
from types import ModuleType

import pytest

os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")  # read when sparsify is imported; its kernels need a GPU

PACKAGES = {"sparsify": "sparsify", "dictionary_learning": "dictionary_learning", "saelens": "sae_lens"}


@pytest.fixture(params=list(PACKAGES))
def tool(request: pytest.FixtureRequest) -> ModuleType:
    """The module of benchmarks/peers that drives a tool; the tools' own warnings are not ours to fail on."""
    if find_spec(PACKAGES[request.param]) is None:
        pytest.skip(f"{request.param} is not installed; `make peers` makes an environment that has it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(f"benchmarks.peers.{request.param}_loop")
