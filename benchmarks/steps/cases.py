"""The names of everything whose step is timed, and what each name stands for. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

TOPK, REFERENCE = "topk", "topk, reference backend"
INT8, BF16 = "topk, int8 scoring", "topk, bf16 scoring"
AUX_K, AUX_ZIPF = "topk, 10 % dead, aux_k", "topk, 10 % dead, aux_zipf"
_NO_AUX = {"aux": {"kind": "none"}}

OURS: dict[str, dict[str, Any]] = {
    TOPK: {"preset": "topk", **_NO_AUX},
    "mutual-choice": {"preset": "mutual-choice", **_NO_AUX},
    "feature-choice": {"preset": "feature-choice", **_NO_AUX},
    "gradient": {"preset": "gradient", **_NO_AUX},
    "matryoshka": {"preset": "matryoshka", **_NO_AUX},
    INT8: {"preset": "topk", **_NO_AUX},
    BF16: {"preset": "topk", **_NO_AUX},
    AUX_K: {"preset": "topk", "aux": {"kind": "aux_k", "warmup_fraction": 0}},
    AUX_ZIPF: {"preset": "topk", "aux": {"kind": "aux_zipf", "warmup_fraction": 0}},
    REFERENCE: {"preset": "topk", **_NO_AUX},
}
# What runs on another backend than its device's default. A GPU multiplies in bf16 where a CPU scores in it.
BACKENDS: dict[str, dict[str, str]] = {
    "cpu": {REFERENCE: "reference", INT8: "cpu-int8", BF16: "cpu-bf16"},
    "cuda": {REFERENCE: "reference", BF16: "triton-bf16"},
}
FLOORS = ("product, MKL", "product, oneDNN", "product, fp32", "product, bf16")


@dataclass(frozen=True)
class Peer:
    """Another tool's training step.

    Attributes:
        module: of `benchmarks.peers`, less its "_loop": how the tool is driven.
        package: what has to be importable.
        options: what the module's `build` takes.
        same_settings: oneDNN for its products, and freed memory that stays with the process (see worker.py).
        dead: a tenth of the latents is dead, and the tool's auxiliary loss is on.
        by_default: measured unless cases are named.
    """

    module: str
    package: str
    options: dict[str, Any] = field(default_factory=dict)
    same_settings: bool = False
    dead: bool = False
    by_default: bool = True


_SIGNUM, _ADAM = {"optimizer": "signum"}, {"optimizer": "adam"}
SPARSIFY, SPARSIFY_ADAM = "sparsify", "sparsify, Adam"
DICTIONARY_LEARNING, SAELENS = "dictionary_learning", "SAELens"
DEAD, SAME = ", 10 % dead", ", same settings"

PEERS: dict[str, Peer] = {
    SPARSIFY: Peer("sparsify", "sparsify", _SIGNUM),
    SPARSIFY + SAME: Peer("sparsify", "sparsify", _SIGNUM, same_settings=True),
    SPARSIFY_ADAM: Peer("sparsify", "sparsify", _ADAM),
    SPARSIFY_ADAM + SAME: Peer("sparsify", "sparsify", _ADAM, same_settings=True),
    SPARSIFY + DEAD: Peer("sparsify", "sparsify", _SIGNUM, dead=True, by_default=False),
    SPARSIFY + DEAD + SAME: Peer("sparsify", "sparsify", _SIGNUM, same_settings=True, dead=True, by_default=False),
    DICTIONARY_LEARNING: Peer("dictionary_learning", "dictionary_learning"),
    DICTIONARY_LEARNING + SAME: Peer(
        "dictionary_learning", "dictionary_learning", same_settings=True, by_default=False
    ),
    DICTIONARY_LEARNING + DEAD: Peer("dictionary_learning", "dictionary_learning", dead=True, by_default=False),
    SAELENS: Peer("saelens", "sae_lens"),
    SAELENS + SAME: Peer("saelens", "sae_lens", same_settings=True, by_default=False),
    SAELENS + DEAD: Peer("saelens", "sae_lens", dead=True, by_default=False),
}


def floors(device: str) -> tuple[str, ...]:
    """Names of the encoder product alone, in the ways in which this device can compute it."""
    return FLOORS[:2] if device == "cpu" else FLOORS[2:]


def all_cases(device: str) -> list[str]:
    """Everything that can be asked for on this device, installed or not."""
    if device == "cpu":
        return [*OURS, *PEERS]
    return [*(case for case in OURS if case != INT8), *(case for case, peer in PEERS.items() if not peer.same_settings)]


def default_cases(device: str) -> list[str]:
    """What is measured unless cases are named: all of ours, and the peers that are installed."""
    return [case for case in all_cases(device) if case in OURS or (PEERS[case].by_default and is_installed(case))]


def is_installed(case: str) -> bool:
    return find_spec(PEERS[case].package) is not None
