"""How well a model does the task: accuracy and logit difference, by template and pattern."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from saelab.evaluation.ioi.nodes import Outcome
from saelab.evaluation.ioi.task import Prompts


class Behaviour(NamedTuple):
    """Answers to some prompts.

    Attributes:
        accuracy: share whose likeliest of all tokens is IO. `prefers_io`: whose logit of IO exceeds that of S.
        logit_difference: mean of logit(IO) − logit(S).
    """

    template: int | None
    pattern: str | None
    n: int
    accuracy: float
    prefers_io: float
    logit_difference: float


def behaviour(prompts: Prompts, outcome: Outcome) -> Iterator[Behaviour]:
    """Of all prompts (template and pattern None), then of each template and pattern that occurs."""
    right = (outcome.predicted == prompts.io_ids).double()
    ld = outcome.logit_difference.double()
    groups = [
        (template, pattern, (prompts.template == template) & (prompts.pos == number))
        for template in sorted(set(prompts.template.tolist()))
        for number, pattern in enumerate(("ABB", "BAB"))
    ]
    for template, pattern, chosen in [(None, None, prompts.template > 0), *groups]:
        if chosen.any():
            yield Behaviour(
                template, pattern, int(chosen.sum()), float(right[chosen].mean()),
                float((ld[chosen] > 0).double().mean()), float(ld[chosen].mean()),
            )  # fmt: skip
