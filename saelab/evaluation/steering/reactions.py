"""What many vectors do at many places."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.dictionaries.dictionary import Dictionary
from saelab.evaluation.steering.directions import Arm
from saelab.evaluation.steering.material import Place
from saelab.evaluation.steering.reaction import Pushes, Reaction, reaction
from saelab.models import LanguageModel, Site
from saelab.progress import Bar
from saelab.ranks.axis import Axis
from saelab.ranks.turns import in_turns
from saelab.steering.edits import columns


@dataclass(frozen=True)
class Reactions:
    """As in `Reaction`, at every place."""

    norm: Float[Tensor, "n places"]
    kl: Float[Tensor, "n places"]
    largest: Float[Tensor, "n places"]
    promoted: Int[Tensor, "n places"]
    gain: Float[Tensor, "n places"]
    harm: Float[Tensor, "n places"]
    on: Float[Tensor, "n places"]
    off: Float[Tensor, "n places"]
    """Mean |change| of the labels that are not aimed at, among next tokens without the one that is."""
    rest: Float[Tensor, "n labels"]
    """Change of each of these, averaged over places."""

    def __getitem__(self, some: slice) -> Reactions:
        return Reactions(*(getattr(self, each.name)[some] for each in fields(self)))


@dataclass(frozen=True)
class Stage:
    """Where vectors are added, and what is looked at.

    All ranks of `axis` call the same methods with the same arguments; they share the places, and all get everything.
    """

    model: LanguageModel
    sites: tuple[Site, ...]
    places: Sequence[Place]
    following: int
    rates: Float[Tensor, "d_vocab labels"]
    """Of the target labels."""
    axis: Axis = field(default_factory=Axis)

    def run(self, pushes: Pushes, bar: Bar) -> Reactions:
        """Add each vector at each place."""
        found: list[Reaction] = []
        for each in self._in_turns(lambda place: self._reaction(pushes, place)._asdict()):
            found.append(Reaction(**each))
            bar.advance(len(pushes.vectors))
        return _stacked(pushes, found)

    def clamped(
        self,
        arm: Arm,
        added: Reactions,
        dictionary: Dictionary,
        latents: Int[Tensor, "n"],
        units: Float[Tensor, "d_sae"],
    ) -> Reactions:
        """`arm`, own strength of the latents, with codes clamped to strength · unit instead of raised by it.

        That is the same where a latent does not fire, so only the others are run.

        Args:
            added: what the arm did.
        """
        reads, directions = Site.parse(dictionary.site), dictionary.decoder_directions()[latents].float().cpu()
        results = replace(added, **{each.name: getattr(added, each.name).clone() for each in fields(added)})

        def work(place: Place) -> dict[str, Tensor]:
            ids = place.ids[None, : len(place.ids) - self.following].to(self.model.device)
            x = self.model.activations(ids, [reads])[reads][0, -1:]
            codes = columns(dictionary.encode(x.float()), latents.to(x.device))[0].float().cpu()
            fires = codes.nonzero()[:, 0]
            if not len(fires):
                return {}
            amount = arm.strength * units[latents[fires]] - codes[fires]
            pushes = Pushes.of(self.model, self.sites, amount[:, None] * directions[fires])
            # What a latent should promote stays that of its direction, also where clamping lowers it.
            pushes = pushes._replace(promotes=Pushes.of(self.model, self.sites, directions[fires]).promotes)
            here = self._reaction(pushes, place)._asdict()
            changed = {name: here[name] for name in ("kl", "largest", "promoted", "gain", "harm")}
            return {"fires": fires, "norm": pushes.vectors.norm(dim=1), **changed}

        for number, changed in enumerate(self._in_turns(work)):
            fires = changed.pop("fires", None)
            for name, values in changed.items():
                getattr(results, name)[fires, number] = values
        return results

    def clean(self) -> Float[Tensor, "places labels"]:
        """Probability that the next token has each label, before anything is added."""
        nothing = Pushes.of(self.model, self.sites, torch.zeros(1, sum(map(self.model.width, self.sites))))
        found = self._in_turns(lambda place: {"clean": self._reaction(nothing, place).clean})
        return torch.stack([each["clean"] for each in found])

    def _reaction(self, pushes: Pushes, place: Place) -> Reaction:
        return reaction(self.model, self.sites, pushes, place, self.following, self.rates)

    def _in_turns(self, work: Callable[[Place], dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
        return in_turns(self.axis, self.places, work, "reactions", everywhere=True)


def _stacked(pushes: Pushes, found: Sequence[Reaction]) -> Reactions:
    rest = torch.stack([each.rest for each in found], dim=1)  # [n, places, labels]
    table = {
        name: torch.stack([getattr(each, name) for each in found], dim=1)
        for name in ("kl", "largest", "promoted", "gain", "harm", "on")
    }
    norm = pushes.vectors.norm(dim=1, keepdim=True).expand(-1, len(found))
    return Reactions(norm=norm, off=rest.abs().nanmean(-1), rest=rest.mean(1), **table)
