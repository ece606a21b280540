"""Test 1, approximation: does the model work with a dictionary's reconstructions, and does it miss what they hold?

Source: arXiv 2405.08366 (METHODS §5). LD = logit(IO) − logit(S), averaged over prompts. All nodes of a cross-section
are replaced at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from saelab.evaluation.ioi.control import Run
from saelab.evaluation.ioi.estimates import RESAMPLES, Estimate, estimates
from saelab.evaluation.ioi.nodes import Node, Outcome


@dataclass(frozen=True, eq=False)
class Reference:
    """What every dictionary of a cross-section is compared with.

    Attributes:
        activations: clean activations of every node.
        means: E[a] of every node, from the prompts that dictionaries were fitted to.
        clean: answers without a patch.  ablated: answers with every activation replaced by its mean.
    """

    activations: Mapping[Node, Float[Tensor, "n d"]]
    means: Mapping[Node, Float[Tensor, "d"]]
    clean: Outcome
    ablated: Outcome

    @classmethod
    def of(
        cls,
        run: Run,
        activations: Mapping[Node, Float[Tensor, "n d"]],
        means: Mapping[Node, Float[Tensor, "d"]],
        clean: Outcome,
    ) -> Reference:
        """With the mean ablation run."""
        ablated = run({node: means[node].expand_as(x) for node, x in activations.items()})
        return cls(activations, means, clean, ablated)


@dataclass(frozen=True)
class Approximation:
    """How far reconstructions can stand in for activations.

    Attributes:
        sufficiency: `LD(a ← a_hat) / LD(clean)`.
        necessity: `1 − |LD_mean − LD_int| / |LD_mean − LD_clean|`, LD_int with `a ← E[a] + (a − a_hat)`, LD_mean with
            `a ← E[a]`.
    """

    sufficiency: Estimate
    necessity: Estimate


def approximate(
    run: Run,
    reconstructions: Mapping[Node, Float[Tensor, "n d"]],
    reference: Reference,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Approximation:
    """Sufficiency and necessity of reconstructions a_hat of all nodes of a cross-section."""
    left_over = {
        node: reference.means[node] + reference.activations[node] - a_hat for node, a_hat in reconstructions.items()
    }
    columns = {
        "clean": reference.clean.logit_difference,
        "mean": reference.ablated.logit_difference,
        "hat": run(reconstructions).logit_difference,
        "int": run(left_over).logit_difference,
    }
    found = estimates(
        columns,
        lambda ld: {
            "sufficiency": ld["hat"] / ld["clean"],
            "necessity": 1 - (ld["mean"] - ld["int"]).abs() / (ld["mean"] - ld["clean"]).abs(),
        },
        resamples,
        seed,
    )
    return Approximation(found["sufficiency"], found["necessity"])
