"""Steering towards a label: does the next token get it, and does nothing else change?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.dictionaries.dictionary import Dictionary
from saelab.evaluation.labels.latents import best_latents
from saelab.evaluation.labels.probes import columns, detection
from saelab.evaluation.steering.material import SteeringText
from saelab.evaluation.steering.reaction import Pushes
from saelab.evaluation.steering.reactions import Reactions
from saelab.evaluation.steering.report import Moved, Steered, Target, TargetMeans, Way
from saelab.evaluation.steering.spread import Weighing, interval, pooled
from saelab.kernels.codes import SparseCodes
from saelab.models import LanguageModel, Site

MOST_MOVED: Final = 3  # other labels that are named
OF_LATENTS: Final[tuple[Way, Way]] = ("detects", "foretells")
OF_SITE: Final[tuple[Way, Way, Way]] = ("mean on it", "mean before it", "random")


class Chosen(NamedTuple):
    """The latents to steer each target label with: those that detect it, then those that foretell it."""

    latents: Int[Tensor, "2·targets"]
    f1: Float[Tensor, "2·targets"]


def choose(codes: SparseCodes, text: SteeringText) -> Chosen:
    """The latent with the best F1 for each target label, on the token itself and on the one before it.

    Args:
        codes: of the tokens that are learnt from.
    """
    n = len(text.names)
    labels = text.labels[:, [*text.targets, *(n + i for i in text.targets)]]
    best = best_latents(codes, labels)
    on = columns(codes, best.latent) > best.threshold
    return Chosen(best.latent, detection(on, labels).f1)


def of_latents(
    model: LanguageModel, sites: Sequence[Site], dictionary: Dictionary, chosen: Chosen, length: float
) -> Pushes:
    """The chosen latents' directions at equal length."""
    vectors = torch.nn.functional.normalize(dictionary.decoder_directions()[chosen.latents].cpu().float(), dim=1)
    return Pushes.of(model, sites, length * vectors, torch.arange(len(vectors) // 2).repeat(2))


def of_site(
    model: LanguageModel,
    sites: Sequence[Site],
    differences: Float[Tensor, "2·labels width"],
    text: SteeringText,
    random: Float[Tensor, "n width"],
    length: float,
) -> Pushes:
    """What all dictionaries share, at equal length: differences of means, on the token and before it, and random."""
    n, targets = len(text.names), text.targets
    both = torch.nn.functional.normalize(differences[[*targets, *(n + i for i in targets)]], dim=1).float()
    return Pushes.of(model, sites, length * torch.cat([both, random]), torch.arange(len(targets)).repeat(3))


def ways(found: Reactions, names: Sequence[Way]) -> dict[Way, Reactions]:
    """Reactions that lie one way behind the other."""
    each = len(found.kl) // len(names)
    return {name: found[i * each : (i + 1) * each] for i, name in enumerate(names)}


def targets(
    text: SteeringText,
    found: Mapping[Way, Reactions],
    chosen: Chosen,
    clean: Float[Tensor, "places targets"],
    weighing: Weighing,
) -> list[Target]:
    """Every label that was steered towards, in every way."""
    before = weighing.mean(clean.T)[0]
    return [
        Target(
            label=text.names[label],
            told=float(text.told[label]),
            clean=float(before[i]),
            ways=[_steered(way, i, text, reactions, chosen, weighing) for way, reactions in found.items()],
        )
        for i, label in enumerate(text.targets)
    ]


def _steered(way: Way, i: int, text: SteeringText, found: Reactions, chosen: Chosen, weighing: Weighing) -> Steered:
    place = OF_LATENTS.index(way) * len(text.targets) + i if way in OF_LATENTS else None
    on = weighing.mean(found.on[i : i + 1])[:, 0]
    order = found.rest[i].abs().nan_to_num(-1).argsort(descending=True)[:MOST_MOVED]
    moved = [j for j in order.tolist() if j != i]
    return Steered(
        way=way,
        latent=None if place is None else int(chosen.latents[place]),
        f1=None if place is None else float(chosen.f1[place]),
        on=float(on[0]),
        off=float(weighing.mean(found.off[i : i + 1])[0, 0]),
        harm=float(weighing.mean(found.harm[i : i + 1])[0, 0]),
        on_interval=interval(on),
        moved=[Moved(label=text.names[text.targets[j]], change=float(found.rest[i, j])) for j in moved],
    )


def means(found: Mapping[Way, Reactions], weighing: Weighing) -> list[TargetMeans]:
    """Every way of steering, over all labels."""
    return [_means(way, reactions, weighing) for way, reactions in found.items()]


def _means(way: Way, found: Reactions, weighing: Weighing) -> TargetMeans:
    on, off, harm = (weighing.mean(values) for values in (found.on, found.off, found.harm))
    numbers = {
        "on": on.mean(1),
        "off": off.mean(1),
        "selectivity": pooled(on, off),
        "harm": harm.mean(1),
        "on_per_harm": pooled(on, harm),
    }
    return TargetMeans(
        way=way,
        **{name: float(values[0]) for name, values in numbers.items()},
        intervals={name: interval(values) for name, values in numbers.items()},
    )
