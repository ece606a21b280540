"""Nodes of a circuit: an activation at one position of every prompt; reading them, and patching them all at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.evaluation.ioi.task import Prompts
from saelab.models import Intervention, LanguageModel, Site
from saelab.models.taps import Edit

BATCH: Final = 256  # prompts that go through the model at a time
NO_PATCHES: Final[Mapping["Node", Tensor]] = MappingProxyType({})


@dataclass(frozen=True, order=True)
class Node:
    """A site at the position of a role (`task.ROLES`)."""

    site: Site
    role: str

    def __str__(self) -> str:
        return f"{self.site} at {self.role}"


@dataclass(frozen=True)
class CrossSection:
    """Nodes that are read and patched together because they carry the same message, such as "(B)NM z"."""

    name: str
    nodes: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What the model answers at END.

    Attributes:
        predicted: the likeliest of all tokens.
        logit_difference: logit of IO less that of S, of the prompts that were given.
    """

    predicted: Int[Tensor, "n"]
    logit_difference: Float[Tensor, "n"]


def activations_at(
    model: LanguageModel, prompts: Prompts, nodes: Iterable[Node], batch: int = BATCH
) -> dict[Node, Float[Tensor, "n d"]]:
    """The activation of each node in each prompt, fp32, on the CPU."""
    nodes = tuple(nodes)
    sites = sorted({node.site for node in nodes})
    parts: dict[Node, list[Tensor]] = {node: [] for node in nodes}
    for some in batches(prompts, batch):
        whole = model.activations(some.ids[:, : int(some.at["END"].max()) + 1], sites)
        for node in nodes:
            x = whole[node.site]
            parts[node].append(x[_rows(x), some.at[node.role].to(x.device)].float().cpu())
    return {node: torch.cat(found) for node, found in parts.items()}


def outcome(
    model: LanguageModel,
    prompts: Prompts,
    patches: Mapping[Node, Float[Tensor, "n d"]] = NO_PATCHES,
    batch: int = BATCH,
) -> Outcome:
    """The answer with all `patches` in force at once: each node's activation replaced, whatever led up to it."""
    parts: list[Outcome] = []
    for start, some in zip(range(0, len(prompts), batch), batches(prompts, batch), strict=True):
        edits = [
            Intervention(node.site, replacer(some.at[node.role], value[start : start + batch]))
            for node, value in patches.items()
        ]
        with model.intervene(*edits):
            logits = model.logits(some.ids[:, : int(some.at["END"].max()) + 1])
        parts.append(answers(logits[_rows(logits), some.at["END"].to(logits.device)], some))
    return joined(parts)


def batches(prompts: Prompts, size: int) -> Iterator[Prompts]:
    """The prompts in order, so many at a time."""
    return (prompts[start : start + size] for start in range(0, len(prompts), size))


def replacer(at: Int[Tensor, "rows"], value: Float[Tensor, "rows d"]) -> Edit:
    """An edit that puts `value` at one position of each row."""

    def replace(x: Float[Tensor, "rows position d"]) -> Float[Tensor, "rows position d"]:
        x = x.clone()
        x[_rows(x), at.to(x.device)] = value.to(x)
        return x

    return replace


def answers(logits: Float[Tensor, "n d_vocab"], prompts: Prompts) -> Outcome:
    """What logits at END say about the prompts."""
    rows = _rows(logits)
    ours, theirs = (logits[rows, ids.to(logits.device)].float() for ids in (prompts.io_ids, prompts.s_ids))
    return Outcome(logits.argmax(-1).cpu(), (ours - theirs).cpu())


def joined(parts: Sequence[Outcome]) -> Outcome:
    """The outcomes of consecutive batches as one."""
    return Outcome(torch.cat([part.predicted for part in parts]), torch.cat([part.logit_difference for part in parts]))


def _rows(x: Tensor) -> Int[Tensor, "rows"]:
    return torch.arange(len(x), device=x.device)
