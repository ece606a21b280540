"""What vectors do when each is added at one place: to the next token, to the text's own continuation, to labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.evaluation.steering.material import Place
from saelab.models import LanguageModel, Site
from saelab.steering.effect import pushed

PROMOTED = 10  # tokens that a vector is meant to promote: those with its largest direct logits
_RESIDUAL = ("resid_pre", "resid_mid", "resid_post", "mlp_out", "attn_out")


class Pushes(NamedTuple):
    """Vectors to add."""

    vectors: Float[Tensor, "n width"]
    """At several sites: side by side."""
    promotes: Int[Tensor, "n tokens"]
    """The tokens with the largest direct logits of each; none where it isn't added to the residual stream."""
    target: Int[Tensor, "n"]
    """Which of the target labels each aims at; -1 for none."""

    @classmethod
    def of(
        cls,
        model: LanguageModel,
        sites: Sequence[Site],
        vectors: Float[Tensor, "n width"],
        target: Int[Tensor, "n"] | None = None,
    ) -> Pushes:
        """Vectors that aim at no label, unless `target` says at which."""
        vectors = vectors.float().cpu()
        promotes = torch.zeros(len(vectors), 0, dtype=torch.int64)
        if all(site.kind in _RESIDUAL for site in sites):
            parts = vectors.split([model.width(site) for site in sites], dim=-1)
            direct = model.direct_logits(torch.stack(parts).sum(0))
            promotes = direct.topk(min(PROMOTED, model.d_vocab)).indices.cpu()
        aimless = torch.full((len(vectors),), -1, dtype=torch.int64)
        return cls(vectors, promotes, aimless if target is None else target)

    @classmethod
    def joined(cls, parts: Sequence[Pushes]) -> Pushes:
        """One behind the other."""
        return cls(*(torch.cat(some) for some in zip(*parts, strict=True)))


class Reaction(NamedTuple):
    """What each vector did at one place; fp32."""

    kl: Float[Tensor, "n"]
    largest: Float[Tensor, "n"]
    promoted: Int[Tensor, "n"]
    gain: Float[Tensor, "n"]
    """Change of the probability of the tokens that the vector promotes directly; NaN where there are none."""
    harm: Float[Tensor, "n"]
    on: Float[Tensor, "n"]
    """Change of the probability of the label aimed at; NaN where none is."""
    rest: Float[Tensor, "n labels"]
    """Change of each label's probability among next tokens without the one aimed at; NaN where none is."""
    clean: Float[Tensor, "labels"]
    """Probability that the next token has each label, before."""


def reaction(
    model: LanguageModel,
    sites: Sequence[Site],
    pushes: Pushes,
    place: Place,
    following: int,
    rates: Float[Tensor, "d_vocab labels"],
) -> Reaction:
    """Add each vector at the place, one at a time.

    Args:
        following: predictions from the place on whose loss counts as harm.
        rates: how often a token carries each of the target labels.
    """
    ids = place.ids[None, :-1]  # the last token is predicted, never read
    truth = place.ids[-following:].to(model.device)
    clean, steered = pushed(model, sites, pushes.vectors, ids, following - 1)
    before = clean[0].log_softmax(-1)
    loss = -before[0].gather(-1, truth[:, None])[:, 0].mean()
    rates = rates.to(before)
    parts: list[Reaction] = []
    done = 0
    for (logits,) in steered:
        some = slice(done, done := done + len(logits))
        change = logits[:, 0] - clean[0, :, 0]
        now = logits.log_softmax(-1)
        wanted = pushes.promotes[some].to(model.device)
        parts.append(
            Reaction(
                kl=(before[:, 0].exp() * (before[:, 0] - now[:, 0])).sum(-1),
                largest=change.abs().amax(-1),
                promoted=change.argmax(-1),
                gain=_mass(now[:, 0].exp() - before[:, 0].exp(), wanted),
                harm=-now.gather(-1, truth[None, :, None].expand(len(now), -1, -1))[..., 0].mean(-1) - loss,
                **changes(before[0, 0].exp(), now[:, 0].exp(), pushes.target[some].to(model.device), rates),
            )
        )
    columns = zip(*(part[:-1] for part in parts), strict=True)
    return Reaction(*(torch.cat(column).cpu() for column in columns), clean=parts[0].clean.cpu())


def _mass(p: Float[Tensor, "n d_vocab"], tokens: Int[Tensor, "n some"]) -> Float[Tensor, "n"]:
    """Sum over `tokens`; NaN where there are none."""
    return p.gather(-1, tokens).sum(-1) if tokens.shape[1] else p.new_full(p.shape[:1], torch.nan)


def changes(
    before: Float[Tensor, "d_vocab"],
    after: Float[Tensor, "n d_vocab"],
    target: Int[Tensor, "n"],
    rates: Float[Tensor, "d_vocab labels"],
) -> dict[str, Tensor]:
    """`on`, `rest` and `clean` of a reaction, from the distribution of the next token."""
    clean = before @ rates
    on = after.new_full((len(after),), torch.nan)
    rest = after.new_full((len(after), rates.shape[1]), torch.nan)
    aiming = (target >= 0).nonzero()[:, 0]
    if len(aiming):
        aims = target[aiming]
        on[aiming] = (after[aiming] * rates.T[aims]).sum(-1) - clean[aims]
        without = 1 - rates.T[aims]  # [aiming, d_vocab]
        rest[aiming] = _shares(after[aiming] * without, rates) - _shares(before * without, rates)
        rest[aiming, aims] = torch.nan
    return {"on": on, "rest": rest, "clean": clean}


def _shares(p: Float[Tensor, "n d_vocab"], rates: Float[Tensor, "d_vocab labels"]) -> Float[Tensor, "n labels"]:
    """Probability of each label when the next token is drawn from p, which need not add up to 1."""
    return (p @ rates) / p.sum(-1, keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)
