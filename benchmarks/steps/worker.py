"""The process in which some cases are built and train when it is their turn: python -m benchmarks.steps.worker.

All of ours share one; a peer has one to itself, so that nobody's settings touch another's. Started by rounds.py,
which sends the setup as the first line of JSON.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.steps.cases import PEERS
from benchmarks.steps.size import Size, read_activations
from benchmarks.steps.turns import Channel, Turns, peak_mb
from saelab.kernels.product import one_dnn_is_exact


def main() -> None:
    channel = Channel()
    setup = channel.receive()
    cases, size, device = setup["cases"], Size.read(setup["size"]), setup["device"]
    peer = PEERS.get(cases[0])
    imported = importlib.import_module(f"benchmarks.peers.{peer.module}_loop" if peer else "benchmarks.steps.ours")
    base = peak_mb(device)
    x, gradient = read_activations(Path(setup["data"]), device)
    questions: dict[str, Callable[[], Any]] = {"memory": lambda: peak_mb(device) - base}
    before: Callable[[], None] = _nothing
    if peer:
        loop = imported.build(size, torch.device(device), peer.dead, **peer.options)
        if peer.same_settings:
            before = _multiply_with_one_dnn
    else:
        ours = imported.Ours(cases, size, x, gradient, setup["profile"])
        loop, questions["findings"] = ours.train, ours.findings
    channel.answer(threads=torch.get_num_threads())
    loop(Turns(channel, x, before, questions))


def _nothing() -> None:
    pass


def _multiply_with_one_dnn() -> None:
    """Before every batch, since sparsify's own loop begins by choosing a precision."""
    if one_dnn_is_exact():
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"  # pyright: ignore[reportAttributeAccessIssue]


if __name__ == "__main__":
    main()
