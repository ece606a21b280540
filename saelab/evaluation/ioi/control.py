"""Test 2, sparse control: do edits of few latents do what the true counterfactual activation does?

Source: arXiv 2405.08366 (METHODS §5). Every edited activation is computed from the clean run, and all nodes of a
cross-section are patched at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saelab.evaluation.ioi.edits import EditPath
from saelab.evaluation.ioi.estimates import RESAMPLES, Estimate, estimates
from saelab.evaluation.ioi.nodes import Node, Outcome

BUDGETS: Final = (1, 2, 4, 6, 8, 16, 32)

Run = Callable[[Mapping[Node, Float[Tensor, "n d"]]], Outcome]
"""The model's answer to the prompts with these activations in place of its own."""


@dataclass(frozen=True)
class EditScore:
    """Edits of one budget.

    Attributes:
        k: latents that may be edited at each node.
        accuracy: share of prompts whose likeliest token is that under the true patch.
        normalised: `(accuracy − no edit) / (1 − no edit)`: 0 for no edit, 1 for the true patch (our reading).
        relative: `(accuracy − no edit) / (supervised − no edit)`; None where no supervised edits were given.
        magnitude: mean edit magnitude over nodes and prompts.
    """

    k: int
    accuracy: Estimate
    normalised: Estimate
    relative: Estimate | None
    magnitude: Estimate


@dataclass(frozen=True)
class Control:
    """Edits of all budgets, beside doing nothing."""

    no_edit: Estimate
    scores: tuple[EditScore, ...]


def agreement(run: Run, patches: Mapping[Node, Float[Tensor, "n d"]], true: Outcome) -> Bool[Tensor, "n"]:
    """Whether each prompt's likeliest token under `patches` is the one under the true patch."""
    return run(patches).predicted == true.predicted


def control(
    run: Run,
    paths: Mapping[Node, EditPath],
    clean: Outcome,
    true: Outcome,
    budgets: Sequence[int] = BUDGETS,
    supervised: Bool[Tensor, "n"] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Control:
    """Edit accuracy and magnitude of every budget.

    Args:
        paths: the edits of every node of the cross-section.
        clean, true: answers without a patch, and with every node's activation replaced by the counterfactual's.
        supervised: `agreement` of the supervised edits, to compare with.
    """
    longest = max(path.longest for path in paths.values())
    reached = sorted({min(k, longest) for k in budgets})  # beyond its last step an edit stays what it is
    edited = {node: path.edited(reached) for node, path in paths.items()}
    columns: dict[str, Tensor] = {"no edit": clean.predicted == true.predicted}
    if supervised is not None:
        columns["supervised"] = supervised
    for k in reached:
        columns[f"accuracy {k}"] = agreement(run, {node: of[k] for node, of in edited.items()}, true)
        columns[f"magnitude {k}"] = torch.stack([path.magnitude(k) for path in paths.values()]).mean(0)
    n = len(true.predicted)

    def numbers(sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        mean = {name: total / n for name, total in sums.items()}
        gains = {k: mean[f"accuracy {k}"] - mean["no edit"] for k in reached}
        found = mean | {f"normalised {k}": gain / (1 - mean["no edit"]) for k, gain in gains.items()}
        if supervised is not None:
            best = mean["supervised"] - mean["no edit"]
            found |= {f"relative {k}": gain / best for k, gain in gains.items()}
        return found

    found = estimates(columns, numbers, resamples, seed)
    scores = tuple(
        EditScore(
            k, found[f"accuracy {at}"], found[f"normalised {at}"], found.get(f"relative {at}"), found[f"magnitude {at}"]
        )
        for k, at in ((k, min(k, longest)) for k in budgets)
    )
    return Control(found["no edit"], scores)
