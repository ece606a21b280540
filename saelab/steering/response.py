"""How the next token answers to the strength of an edit: one prompt, many strengths."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.dictionaries.dictionary import Dictionary
from saelab.models import LanguageModel, Positions
from saelab.steering.config import Method
from saelab.steering.edits import Edits
from saelab.steering.effect import at_once
from saelab.steering.steered import together


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

    What comes before the edited positions is run once, and the variants go through the rest side by side.
    Args and errors as in `interventions`.
    """
    there = Positions.parse(positions)
    start = 0 if there is None else min(there.start_in(len(prompt)), len(prompt) - 1)
    ids, dictionary = prompt[None].to(model.device), dictionary.to(model.device)
    rest, n = model.from_position(ids, start), at_once(model, ids, len(prompt) - start)
    found = []
    for some in (variants[first : first + n] for first in range(0, len(variants), n)):
        edits = together(dictionary, some, method=method, units=units, positions=positions)
        with model.intervene(*edits):
            logits, _ = rest((), len(some))
        found.append(logits[:, -1].float().cpu())
    return torch.cat(found)


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
