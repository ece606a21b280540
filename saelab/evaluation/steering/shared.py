"""What all dictionaries of a site are held against: made once in a pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.evaluation.shown import shown
from saelab.evaluation.steering import directions, targets
from saelab.evaluation.steering.directions import Arm, random_directions
from saelab.evaluation.steering.material import SteeringText
from saelab.evaluation.steering.reaction import Pushes
from saelab.evaluation.steering.reactions import Reactions, Stage
from saelab.evaluation.steering.report import Way
from saelab.models import LanguageModel, Site
from saelab.ranks.axis import Axis

RANDOM = 64  # directions


@dataclass(frozen=True)
class Shared:
    """The stage of a site, and what baselines do on it."""

    stage: Stage
    lengths: dict[float, float]
    """Equal lengths: multiple of the typical distance → model units."""
    random: Float[Tensor, "random width"]
    """Unit vectors."""
    arms: list[tuple[Arm, Reactions]]
    ways: dict[Way, Reactions]
    """Steering towards labels; none where the text has none."""
    clean: Float[Tensor, "places targets"]


class Baselines:
    """The text, and what is shared at each site.

    Args:
        axis: the ranks that share the steering; all of them have taken in all text.
    """

    def __init__(self, text: SteeringText, model: LanguageModel, axis: Axis) -> None:
        self.text, self.model, self.axis = text, model, axis
        self._at: dict[tuple[Site, ...], Shared] = {}

    def at(self, sites: tuple[Site, ...]) -> Shared:
        """Made when it is first asked for, after all text was taken in."""
        if sites not in self._at:
            self._at[sites] = _shared(self.text, self.model, sites, self.axis)
        return self._at[sites]


def _shared(text: SteeringText, model: LanguageModel, sites: tuple[Site, ...], axis: Axis) -> Shared:
    """Baselines at `sites`, on all that the text has been seen to be.

    Raises:
        UserError: too few places, or labels that can't be judged.
    """
    config, moments = text.config, text.moments(sites)
    stage = Stage(model, sites, text.places, config.following, _rates(text, model.d_vocab), axis)
    lengths = {multiple: multiple * moments.typical for multiple in config.lengths}
    width = sum(map(model.width, sites))
    random = random_directions(max(RANDOM, len(text.targets)), width, text.seed)
    differences = moments.differences
    on_token = differences[: len(text.names)][text.targets].float() if text.targets else random[:0]
    arms = directions.of_site(random[:RANDOM], on_token, config.strengths, lengths)
    parts = [Pushes.of(model, sites, arm.vectors) for arm in arms]
    if text.targets:
        parts.append(targets.of_site(model, sites, differences, text, random[: len(text.targets)], first(lengths)))
    found = run(stage, parts, "baselines")
    ways = targets.ways(found.pop(), targets.OF_SITE) if text.targets else {}
    return Shared(stage, lengths, random[:RANDOM], list(zip(arms, found, strict=True)), ways, stage.clean())


def run(stage: Stage, parts: list[Pushes], label: str) -> list[Reactions]:
    """What each part does, all of them at once; shows progress."""
    sizes = [len(part.vectors) for part in parts]
    with shown(stage.axis, sum(sizes) * len(stage.places), label, "pushes") as bar:
        together = stage.run(Pushes.joined(parts), bar)
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return [together[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def first(lengths: dict[float, float]) -> float:
    """The length that stands in tables, in model units."""
    return next(iter(lengths.values()))


def _rates(text: SteeringText, d_vocab: int) -> Float[Tensor, "d_vocab targets"]:
    return text.rates[:, text.targets].float() if text.targets else torch.zeros(d_vocab, 0)
