"""How far a latent moves the model when it is turned up at random places: the whole distribution, not the best example.

Source: METHODS §6. A vector is added to the activation at one position of a text, and the model's next-token
distribution at that position is compared with the clean one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.corpora import TokenRows
from saelab.dictionaries.dictionary import Dictionary
from saelab.errors import UserError
from saelab.models import Intervention, LanguageModel, Positions, Site

_NUMBERS_AT_ONCE = 2**26  # keys, values and logits of all rows and copies that run at once: 256 MB in fp32
_COPIES_OF_LOGITS = 3  # themselves, and what is made of them


class Contexts(NamedTuple):
    """Starts of texts, all of one length; what is steered is their last position."""

    ids: Int[Tensor, "contexts length"]


@dataclass(frozen=True)
class Effects:
    """What each vector did in each context, at the position where it was added."""

    norm: Float[Tensor, "vectors"]
    """Length of the vector, in model units."""
    kl: Float[Tensor, "vectors contexts"]
    """KL(clean ‖ steered) of the next token, nats."""
    largest: Float[Tensor, "vectors contexts"]
    """Largest |Δlogit| over the vocabulary."""
    promoted: Int[Tensor, "vectors contexts"]
    """Token whose logit rose most."""

    @property
    def agreement(self) -> Float[Tensor, "vectors"]:
        """Share of contexts in which the commonest of the promoted tokens is the promoted one."""
        commonest = self.promoted.mode(dim=1).values
        return (self.promoted == commonest[:, None]).double().mean(1)

    def quantiles(self, shares: Sequence[float] = (0.1, 0.25, 0.5, 0.75, 0.9)) -> dict[str, list[float]]:
        """Over vectors: quantiles of the norm, of KL and largest |Δlogit| averaged over contexts, of agreement."""
        at = torch.tensor(shares, dtype=torch.float64)
        of = {"norm": self.norm, "kl": self.kl.mean(1), "largest": self.largest.mean(1), "agreement": self.agreement}
        return {name: torch.quantile(values.double(), at).tolist() for name, values in of.items()}


def random_contexts(rows: Iterable[TokenRows], n: int, seed: int = 0) -> list[Contexts]:
    """`n` contexts: of each chunk of rows one random position is drawn, and those rows that keep it end there.

    Args:
        rows: chunks of text; the smaller they are, the more lengths there are among the contexts.

    Raises:
        UserError: the rows end before there are `n`.
    """
    generator = torch.Generator().manual_seed(seed)
    contexts: list[Contexts] = []
    missing = n
    for chunk in rows:
        kept = chunk.keep.any(0).nonzero()[:, 0]
        if missing == 0:
            break
        if not len(kept):
            continue
        position = int(kept[torch.randint(len(kept), (1,), generator=generator)])
        ids = chunk.ids[chunk.keep[:, position], : position + 1][:missing].long()
        contexts.append(Contexts(ids))
        missing -= len(ids)
    if missing:
        raise UserError(f"the text gives {n - missing} contexts to steer in where {n} are wanted; read more of it")
    return contexts


def live_latents(units: Float[Tensor, "d_sae"], n: int, seed: int = 0) -> Int[Tensor, "n"]:
    """`n` random latents among those that fired (largest activation above 0), ascending; all if there are fewer."""
    live = (units > 0).nonzero()[:, 0].cpu()
    return live[torch.randperm(len(live), generator=torch.Generator().manual_seed(seed))[:n]].sort().values


def own_strength(
    dictionary: Dictionary, latents: Int[Tensor, "n"], units: Float[Tensor, "d_sae"], strength: float = 1.0
) -> Float[Tensor, "n d_out"]:
    """strength · largest activation · direction of each latent: as strong as each of them gets by itself."""
    directions = dictionary.decoder_directions()
    return strength * units[latents].to(directions)[:, None] * directions[latents]


def equal_strength(dictionary: Dictionary, latents: Int[Tensor, "n"], norm: float) -> Float[Tensor, "n d_out"]:
    """Each latent's direction at length `norm` in model units: matched across latents and dictionaries."""
    return norm * torch.nn.functional.normalize(dictionary.decoder_directions()[latents], dim=1)


@torch.no_grad()
def effects(
    model: LanguageModel, sites: Sequence[Site], vectors: Float[Tensor, "n width"], contexts: Sequence[Contexts]
) -> Effects:
    """Add each vector at the last position of each context, and compare the next token's logits with the clean ones.

    A context's text is run once; each vector then costs one token.

    Args:
        sites: `written_sites` of a dictionary, or any; their widths together are that of the vectors.
        vectors: added to the activations at `sites`, side by side in this order, in model units.
    """
    kl, largest, promoted = [], [], []
    for (ids,) in contexts:
        clean, steered = pushed(model, sites, vectors, ids)
        parts = [_compared(clean[:, :, -1], some[:, :, -1]) for some in steered]
        kl.append(torch.cat([part.kl for part in parts]))
        largest.append(torch.cat([part.largest for part in parts]))
        promoted.append(torch.cat([part.promoted for part in parts]))
    return Effects(vectors.norm(dim=1).cpu(), torch.cat(kl, dim=1), torch.cat(largest, dim=1), torch.cat(promoted, 1))


class Pushed(NamedTuple):
    """Logits from the steered position on, fp32."""

    clean: Float[Tensor, "contexts 1 positions d_vocab"]
    steered: Iterator[Float[Tensor, "contexts some positions d_vocab"]]
    """Of some of the vectors at a time, in their order."""


@torch.no_grad()
def pushed(
    model: LanguageModel,
    sites: Sequence[Site],
    vectors: Float[Tensor, "n width"],
    ids: Int[Tensor, "contexts length"],
    following: int = 0,
) -> Pushed:
    """Run texts with each vector added at one position, the last but `following`.

    What comes before it is run once; each vector then costs 1 + `following` tokens.

    Args:
        vectors: as in `effects`.
    """
    place = ids.shape[1] - 1 - following
    rest = model.from_position(ids, place)
    some_at_once = at_once(model, ids, following + 1)
    widths = [model.width(site) for site in sites]

    def steered() -> Iterator[Float[Tensor, "contexts some positions d_vocab"]]:
        for some in vectors.to(model.device).split(some_at_once):
            parts = zip(sites, some.repeat(len(ids), 1)[:, None].split(widths, dim=-1), strict=True)
            there = Positions(place, alone=True)
            with model.intervene(*(Intervention(s, partial(torch.add, part), positions=there) for s, part in parts)):
                logits, _ = rest((), len(some))
            yield logits.float().unflatten(0, (len(ids), len(some)))

    return Pushed(rest()[0].float()[:, None], steered())


class _Outcome(NamedTuple):
    """As in `Effects`, of some of its vectors in some of its contexts."""

    kl: Float[Tensor, "some contexts"]
    largest: Float[Tensor, "some contexts"]
    promoted: Int[Tensor, "some contexts"]


def _compared(clean: Float[Tensor, "contexts 1 d_vocab"], steered: Float[Tensor, "contexts some d_vocab"]) -> _Outcome:
    change = steered - clean
    before, after = clean.log_softmax(-1), steered.log_softmax(-1)
    kl = (before.exp() * (before - after)).sum(-1)
    return _Outcome(kl.T.cpu(), change.abs().amax(-1).T.cpu(), change.argmax(-1).T.cpu())


def at_once(model: LanguageModel, ids: Int[Tensor, "contexts length"], positions: int) -> int:
    """Copies of texts, of which the last `positions` run, that go together without keys, values and logits growing
    large; at least one."""
    cached = 2 * model.n_layers * model.d_model * ids.numel()
    logits = _COPIES_OF_LOGITS * len(ids) * positions * model.d_vocab
    return max(1, _NUMBERS_AT_ONCE // (cached + logits))
