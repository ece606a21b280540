"""Many patches of the same prompts: the clean run is kept up to the first patched position, the rest is run anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.evaluation.ioi.nodes import BATCH, NO_PATCHES, Node, Outcome, answers, joined, replacer
from saelab.evaluation.ioi.task import Prompts
from saelab.models import Intervention, LanguageModel, Site


class _Part(NamedTuple):
    rows: Int[Tensor, "rows"]  # of all prompts
    prompts: Prompts
    start: int  # the first position that is run again
    rest: Callable[[Sequence[Site]], tuple[Tensor, dict[Site, Tensor]]]


class CleanRun:
    """Prompts whose keys and values before the first of `roles` are held in memory.

    Patches at END alone then cost one token a prompt. Answers are those of `nodes.outcome` but for rounding.
    """

    def __init__(self, model: LanguageModel, prompts: Prompts, roles: Iterable[str], batch: int = BATCH) -> None:
        self.model, self.prompts = model, prompts
        roles = tuple(roles)
        by_length = prompts.at["END"].argsort(stable=True)
        self._parts: list[_Part] = []
        for rows in by_length.split(batch):
            some = prompts[rows]
            start = min(int(some.at[role].min()) for role in roles)
            ids = some.ids[:, : int(some.at["END"].max()) + 1]
            self._parts.append(_Part(rows, some, start, model.from_position(ids, start)))
        self._back = torch.cat([part.rows for part in self._parts]).argsort()

    def outcome(self, patches: Mapping[Node, Float[Tensor, "n d"]] = NO_PATCHES) -> Outcome:
        """The answer with all `patches` in force at once."""
        parts: list[Outcome] = []
        for part in self._parts:
            with self.model.intervene(*_edits(part, patches)):
                logits, _ = part.rest(())
            at = part.prompts.at["END"].to(logits.device) - part.start
            parts.append(answers(logits[torch.arange(len(logits), device=logits.device), at], part.prompts))
        found = joined(parts)
        return Outcome(found.predicted[self._back], found.logit_difference[self._back])

    def activations(
        self, nodes: Iterable[Node], patches: Mapping[Node, Float[Tensor, "n d"]] = NO_PATCHES
    ) -> dict[Node, Float[Tensor, "n d"]]:
        """What `nodes` are with all `patches` in force at once."""
        nodes = tuple(nodes)
        sites = sorted({node.site for node in nodes})
        parts: dict[Node, list[Tensor]] = {node: [] for node in nodes}
        for part in self._parts:
            with self.model.intervene(*_edits(part, patches)):
                _, at_sites = part.rest(sites)
            for node in nodes:
                x = at_sites[node.site]
                at = part.prompts.at[node.role].to(x.device) - part.start
                parts[node].append(x[torch.arange(len(x), device=x.device), at].float().cpu())
        return {node: torch.cat(found)[self._back] for node, found in parts.items()}


def _edits(part: _Part, patches: Mapping[Node, Tensor]) -> list[Intervention]:
    return [
        Intervention(node.site, replacer(part.prompts.at[node.role] - part.start, value[part.rows]))
        for node, value in patches.items()
    ]
