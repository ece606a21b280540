"""Test 3, the causal check: do the latents that we can describe do the work?

Source: arXiv 2405.08366 (METHODS §5): latents with F1 < t are removed (sufficiency), or those with F1 ≥ t (necessity).
Our reading: test 1 of the dictionary that has only the latents with F1 ≥ t, so that t = 0 gives test 1 itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from jaxtyping import Float
from torch import Tensor

from saelab.evaluation.ioi.approximation import Approximation, Reference, approximate
from saelab.evaluation.ioi.control import Run
from saelab.evaluation.ioi.estimates import RESAMPLES
from saelab.evaluation.ioi.features import Features
from saelab.evaluation.ioi.nodes import Node
from saelab.kernels.codes import SparseCodes

THRESHOLDS: Final = (0.0, 0.2, 0.4, 0.6, 0.8)


@dataclass(frozen=True)
class AboveThreshold:
    """What the latents with F1 ≥ `threshold` do.

    Attributes:
        latents: how many there are, over all nodes.
        approximation: test 1 with these latents alone.
    """

    threshold: float
    latents: int
    approximation: Approximation


def above_thresholds(
    run: Run,
    features: Mapping[Node, Features],
    codes: Mapping[Node, SparseCodes],
    f1: Mapping[Node, Float[Tensor, "F"]],
    reference: Reference,
    thresholds: Sequence[float] = THRESHOLDS,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[AboveThreshold, ...]:
    """Sufficiency and necessity of the latents whose best F1 reaches each threshold.

    Args:
        codes: of the reference's activations.
        f1: `PropertyTable.best` of every node, from the prompts that dictionaries were fitted to.
    """
    found = []
    for threshold in thresholds:
        kept = {node: f1[node] >= threshold for node in features}
        partial = {node: of.reconstruct(codes[node], kept[node]) for node, of in features.items()}
        result = approximate(run, partial, reference, resamples, seed)
        found.append(AboveThreshold(threshold, sum(int(latents.sum()) for latents in kept.values()), result))
    return tuple(found)
