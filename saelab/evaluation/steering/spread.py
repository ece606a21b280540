"""From what every vector did at every place to numbers over vectors, with intervals over documents."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.evaluation.bootstrap import LEVEL, draws
from saelab.evaluation.numbers import Interval
from saelab.evaluation.steering.report import Spread

SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)
FLOOR = 0.01  # nats per token of harm, above which a ratio to it means something
LEVEL_OF_HARM = 0.1  # nats per token, at which gains are compared


@dataclass(frozen=True)
class Weighing:
    """The places, drawn again document by document.

    Attributes:
        weights: how often each place counts in each sample; the first row is the text itself, all ones.
    """

    weights: Float[Tensor, "1+resamples places"]

    @classmethod
    def of(cls, documents: list[int], resamples: int, seed: int) -> Weighing:
        """Samples of as many documents as there are, drawn with replacement; none of a single document."""
        place = torch.tensor(documents).unique(return_inverse=True)[1]
        n = int(place.max()) + 1
        rows = [torch.ones(1, len(documents), dtype=torch.float64)]
        if n > 1:
            rows += [drawn[:, place] for drawn in draws(n, resamples, seed)]
        return cls(torch.cat(rows))

    def mean(self, values: Float[Tensor, "vectors places"]) -> Float[Tensor, "1+resamples vectors"]:
        """Mean over places, of the text and of each sample."""
        return self.weights @ values.double().T / self.weights.sum(1, keepdim=True)


def agreement(promoted: Int[Tensor, "vectors places"]) -> Float[Tensor, "1 vectors"]:
    """Share of places in which the commonest of the promoted tokens is the promoted one.

    Without samples: in places that are drawn twice the promoted tokens agree, so that every sample's share is too high.
    """
    commonest = promoted.mode(dim=1).values
    return (promoted == commonest[:, None]).double().mean(1)[None]


def spread(values: Float[Tensor, "1+resamples vectors"]) -> Spread | None:
    """The text's own quantiles over vectors, and the interval of the median; vectors without the number are left out.

    None where no vector has it.
    """
    known = values[:, ~values[0].isnan()]
    if not known.shape[1]:
        return None
    shares = torch.tensor(SHARES, dtype=torch.float64)
    names = [f"p{100 * share:.0f}" for share in SHARES]
    of_text = dict(zip(names, known[0].quantile(shares).tolist(), strict=True))
    return Spread(**of_text, mean=float(known[0].mean()), interval=interval(known.nanquantile(0.5, dim=1)))


def interval(numbers: Float[Tensor, "1+resamples"]) -> Interval:
    """The central 95 % of the samples; null ends without samples, or where one of them lacks the number."""
    if len(numbers) < 2:
        return Interval(low=None, high=None)
    ends = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    low, high = numbers[1:].quantile(ends).tolist()
    return Interval(low=low, high=high)


def per_harm(
    gain: Float[Tensor, "1+resamples vectors"], harm: Float[Tensor, "1+resamples vectors"]
) -> Float[Tensor, "1+resamples vectors"]:
    """gain / harm of the vectors whose harm is above the floor, NaN of the others."""
    return torch.where(harm > FLOOR, gain / harm, torch.nan)


def pooled(
    over: Float[Tensor, "1+resamples vectors"], under: Float[Tensor, "1+resamples vectors"]
) -> Float[Tensor, "1+resamples"]:
    """Sum over vectors over sum over vectors; NaN where the lower one is not above 0."""
    total = under.nansum(1)
    return torch.where(total > 0, over.nansum(1) / total, torch.nan)


def at_harm(
    gain: Float[Tensor, "lengths 1+resamples"], harm: Float[Tensor, "lengths 1+resamples"], level: float = LEVEL_OF_HARM
) -> Float[Tensor, "1+resamples"]:
    """The gain where the harm first reaches `level`, on straight lines from (0, 0) through ever longer pushes.

    NaN where it is not reached.
    """
    harm, gain = (torch.cat([torch.zeros_like(of[:1]), of]) for of in (harm, gain))
    reached = harm >= level
    upper = reached.int().argmax(0, keepdim=True).clamp_min(1)
    (h0, h1), (g0, g1) = ((of.gather(0, upper - 1)[0], of.gather(0, upper)[0]) for of in (harm, gain))
    return torch.where(reached.any(0), g0 + (g1 - g0) * (level - h0) / (h1 - h0), torch.nan)
