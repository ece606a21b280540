"""Which heads do the task: GPT-2 small's as published, any other model's as found by patching activations and paths.

How heads are found. The corrupted prompt differs from the clean one in a single token: S2 names IO, so that the right
answer is now S. The effect of a patch is the share of the way from the clean to the corrupted logit difference that it
goes. Heads have roles by what their output at one position does on one path, as in path patching (arXiv 2211.00593):
the corrupted `z` is put in, all later heads are held at their clean `z` (MLPs are computed anew), and

- *name movers* change the logits at END directly;
- *S-inhibition heads* at END change the logits through the name movers' queries alone;
- *induction and duplicate token heads* at S2 change the logits through the S-inhibition heads' values alone.

A head belongs to a role when its effect on that path is at least `threshold` of the role's strongest head, and at least
`floor` of the whole way; a role may stay empty. Source of the roles: arXiv 2405.08366; the two limits and the order of
the search are our own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.errors import UserError
from saelab.evaluation.ioi.nodes import CrossSection, Node, activations_at
from saelab.evaluation.ioi.patching import CleanRun
from saelab.evaluation.ioi.task import Prompts
from saelab.evaluation.shown import shown
from saelab.models import LanguageModel, Site, SiteKind
from saelab.progress import Bar
from saelab.ranks.axis import Axis

Head = tuple[int, int]  # layer, number
Role = Literal["name movers", "S-inhibition", "induction and duplicate token"]

GPT2_SMALL: Final[Mapping[str, tuple[Head, ...]]] = {
    "name movers": ((9, 9), (9, 6), (10, 0)),
    "backup name movers": ((9, 0), (9, 7), (10, 1), (10, 2), (10, 10), (11, 2), (11, 9)),
    "S-inhibition": ((7, 3), (7, 9), (8, 6), (8, 10)),
    "induction": ((5, 5), (5, 8), (5, 9), (6, 9)),
    "duplicate token": ((0, 1), (3, 0), (0, 10)),
    "previous token": ((2, 2), (4, 11)),
    "negative movers": ((10, 7), (11, 10)),
}
"""GPT-2 small's heads by class (arXiv 2211.00593, as arXiv 2405.08366 uses them)."""
QUERIES_AND_KEYS: Final = "(B)NM qk"
_SHAPE: Final = (12, 12, 768, 50257)  # layers, heads, d_model, d_vocab of GPT-2 small


@dataclass(frozen=True, eq=False)
class Circuit:
    """Heads by role, and where that is known from.

    Attributes:
        source: "published" (GPT-2 small's, typed in) or "found" (by patching, on this model).
        scores: of what was found: measure → `[n_layers, n_heads]`, effects as shares of the whole.
    """

    source: Literal["published", "found"]
    heads: Mapping[Role, tuple[Head, ...]]
    scores: Mapping[str, Float[Tensor, "n_layers n_heads"]] = field(default_factory=dict)

    def cross_sections(self, model: LanguageModel) -> tuple[CrossSection, ...]:
        """Where the three attributes pass through, in the order of METHODS; those without heads are left out."""
        movers, inhibitors = self.heads["name movers"], self.heads["S-inhibition"]
        keys = (*_nodes(model, movers, "k", "IO"), *_nodes(model, movers, "k", "S1"))
        queries = _nodes(model, movers, "q", "END")
        sections = (
            CrossSection("(B)NM z", _nodes(model, movers, "z", "END")),
            CrossSection("(B)NM q", queries),
            CrossSection(QUERIES_AND_KEYS, (*queries, *keys)),
            CrossSection("S-I z", _nodes(model, inhibitors, "z", "END")),
            CrossSection("S-I v", _nodes(model, inhibitors, "v", "S2")),
            CrossSection("Ind+DT z", _nodes(model, self.heads["induction and duplicate token"], "z", "S2")),
        )
        return tuple(section for section in sections if section.nodes)


def is_gpt2_small(model: LanguageModel) -> bool:
    """Whether the model has GPT-2 small's shape and vocabulary."""
    return (model.n_layers, model.n_heads, model.d_model, model.d_vocab) == _SHAPE


def published(model: LanguageModel) -> Circuit:
    """GPT-2 small's circuit.

    Raises:
        UserError: the model has other layers and heads.
    """
    if (model.n_layers, model.n_heads) != _SHAPE[:2]:
        raise UserError(
            f"the published circuit is GPT-2 small's, of 12 layers with 12 heads; {model.name} has {model.n_layers} "
            f"with {model.n_heads}: set circuit to found"
        )
    movers = GPT2_SMALL["name movers"] + GPT2_SMALL["backup name movers"]
    induction = GPT2_SMALL["induction"] + GPT2_SMALL["duplicate token"]
    return Circuit(
        "published",
        {
            "name movers": movers,
            "S-inhibition": GPT2_SMALL["S-inhibition"],
            "induction and duplicate token": induction,
        },
    )


def find(model: LanguageModel, prompts: Prompts, threshold: float, floor: float, axis: Axis | None = None) -> Circuit:
    """The circuit of any model, by the rule above, and the scores behind it.

    Args:
        prompts: some hundreds, that the model answers well.
        axis: of its ranks, each of which searches by itself, the first one shows how far it is.

    Raises:
        UserError: the model does not do the task, or no head moves names.
    """
    search = _Search(model, prompts)
    runs = model.n_layers * model.n_heads * 7
    with shown(axis or Axis(), runs, "patching heads", "runs") as bar:
        scores = {
            f"{way} z at {role}": search.patched(role, way, bar)
            for role in ("END", "S2")
            for way in ("noising", "denoising")
        }
        scores["direct effect of z at END"] = direct = search.direct(bar)
        movers = _strongest(direct, threshold, floor)
        scores["z at END through the name movers' q"] = through_q = search.through(
            "END", _nodes(model, movers, "q", "END"), bar
        )
        inhibitors = _strongest(through_q, threshold, floor)
        scores["z at S2 through the S-inhibition heads' v"] = through_v = search.through(
            "S2", _nodes(model, inhibitors, "v", "S2"), bar
        )
    return Circuit(
        "found",
        {
            "name movers": movers,
            "S-inhibition": inhibitors,
            "induction and duplicate token": _strongest(through_v, threshold, floor),
        },
        scores,
    )


class _Search:
    """Clean and corrupted activations, and the clean runs that patches are put into."""

    def __init__(self, model: LanguageModel, prompts: Prompts) -> None:
        self.model = model
        corrupted = prompts.with_values(prompts.s, prompts.io, 1 - prompts.pos)  # differs in the token at S2 alone
        self.heads = [(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]
        whole = [Node(Site(layer, "z"), role) for layer in range(model.n_layers) for role in ("END", "S2")]
        self.clean, self.corrupted = activations_at(model, prompts, whole), activations_at(model, corrupted, whole)
        self.runs = {role: CleanRun(model, prompts, [role]) for role in ("END", "S2")}
        self.corrupted_runs = {role: CleanRun(model, corrupted, [role]) for role in ("END", "S2")}
        clean = self.runs["END"].outcome().logit_difference.mean()
        # Of the corrupted prompts IO and S have changed places: their difference is the negative of what is compared.
        corrupt = -self.corrupted_runs["END"].outcome().logit_difference.mean()
        self.base, self.whole = float(clean), float(clean - corrupt)
        if self.whole <= 0 or self.base <= 0:
            raise UserError(
                f"{model.name} does not do the task: the mean logit difference is {self.base:.3f}, and "
                f"{self.base - self.whole:.3f} with the names of S2 exchanged; a circuit can't be found"
            )

    def patched(self, role: str, way: str, bar: Bar) -> Float[Tensor, "n_layers n_heads"]:
        """Noising: the corrupted z in the clean run. Denoising: the clean z in the corrupted run."""
        noising = way == "noising"
        source = self.corrupted if noising else self.clean
        effects = []
        for head in self.heads:
            patch = dict([self._slice(source, head, role)])
            if noising:
                effects.append(self._effect(self.runs[role].outcome(patch).logit_difference))
            else:
                effects.append(1 - self._effect(-self.corrupted_runs[role].outcome(patch).logit_difference))
            bar.advance(1)
        return self._grid(effects)

    def direct(self, bar: Bar) -> Float[Tensor, "n_layers n_heads"]:
        """Effect of each head's z at END with all later heads held at their clean z."""
        effects = []
        for head in self.heads:
            patches = self._later(head, "END") | dict([self._slice(self.corrupted, head, "END")])
            effects.append(self._effect(self.runs["END"].outcome(patches).logit_difference))
            bar.advance(1)
        return self._grid(effects)

    def through(self, role: str, receivers: Sequence[Node], bar: Bar) -> Float[Tensor, "n_layers n_heads"]:
        """Effect of each head's z at `role` through `receivers` alone, other later heads held at their clean z."""
        effects = []
        last = max((node.site.layer for node in receivers), default=-1)
        for head in self.heads:
            effect = 0.0
            if head[0] < last:
                patches = self._later(head, role) | dict([self._slice(self.corrupted, head, role)])
                received = self.runs[role].activations(receivers, patches)
                effect = self._effect(self.runs[role].outcome(received).logit_difference)
            effects.append(effect)
            bar.advance(1)
        return self._grid(effects)

    def _later(self, head: Head, role: str) -> dict[Node, Tensor]:
        return {node: z for node, z in self.clean.items() if node.role == role and node.site.layer > head[0]}

    def _slice(self, of: Mapping[Node, Tensor], head: Head, role: str) -> tuple[Node, Tensor]:
        layer, number = head
        width = self.model.d_head
        z = of[Node(Site(layer, "z"), role)][:, number * width : (number + 1) * width]
        return Node(Site(layer, "z", number), role), z

    def _effect(self, logit_difference: Float[Tensor, "n"]) -> float:
        return (self.base - float(logit_difference.mean())) / self.whole

    def _grid(self, effects: Sequence[float]) -> Float[Tensor, "n_layers n_heads"]:
        return torch.tensor(effects).view(self.model.n_layers, self.model.n_heads)


def _strongest(effects: Float[Tensor, "n_layers n_heads"], threshold: float, floor: float) -> tuple[Head, ...]:
    """Heads with at least `threshold` of the largest effect and more than `floor`, strongest first."""
    least = max(floor, threshold * float(effects.max()))
    order = effects.flatten().argsort(descending=True).tolist()
    chosen = [divmod(place, effects.shape[1]) for place in order]
    return tuple(head for head in chosen if float(effects[head]) >= least > 0)


def _nodes(model: LanguageModel, heads: Iterable[Head], kind: SiteKind, role: str) -> tuple[Node, ...]:
    """A node for each head; under grouped-query attention several heads share one k or v."""
    shared = model.n_heads // model.n_kv_heads if kind in ("k", "v") else 1
    return tuple(sorted({Node(Site(layer, kind, head // shared), role) for layer, head in heads}))
