"""How the next token answers to the strength of an edit: one prompt, many strengths."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.dictionaries.dictionary import Dictionary
from saelab.models import LanguageModel
from saelab.steering.config import Method
from saelab.steering.edits import Edits
from saelab.steering.steered import steered


@torch.no_grad()
def next_logits(
    model: LanguageModel,
    dictionary: Dictionary,
    prompt: Int[Tensor, "position"],
    variants: Sequence[Edits],
    *,
    method: Method = "difference",
    units: Float[Tensor, "d_sae"] | None = None,
    positions: str = "all",
) -> Float[Tensor, "variants d_vocab"]:
    """Logits of what comes after the prompt under each variant's edits, fp32 on the CPU; [] is the model as it is.

    Args and errors as in `interventions`.
    """
    ids, found = prompt[None].to(model.device), []
    for edits in variants:
        with steered(model, dictionary, edits, method=method, units=units, positions=positions):
            found.append(model.logits(ids)[0, -1].float().cpu())
    return torch.stack(found)


def divergence(before: Float[Tensor, "d_vocab"], after: Float[Tensor, "n d_vocab"]) -> Float[Tensor, "n"]:
    """KL(before ‖ after) in nats, from logits: how far each `after` moved the distribution."""
    p, q = before.log_softmax(-1), after.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def shift(before: Float[Tensor, "d_vocab"], after: Float[Tensor, "n d_vocab"]) -> Float[Tensor, "n d_vocab"]:
    """By how much each token's logit rose, less the mean rise over the vocabulary, which changes no probability."""
    change = after - before
    return change - change.mean(-1, keepdim=True)


def strength_grid(strengths: Sequence[float], steps: int = 12) -> list[float]:
    """Strengths for a curve: the given ones, 0, and evenly spaced ones to a quarter beyond the largest in size.

    They go below 0 only where one of the given ones does.
    """
    top = 1.25 * max((abs(strength) for strength in strengths), default=1.0) or 1.0
    low = -top if min(strengths, default=0.0) < 0 else 0.0
    even = [low + (top - low) * step / steps for step in range(steps + 1)]
    return sorted({round(strength, 6) for strength in [*even, *strengths, 0.0]})
