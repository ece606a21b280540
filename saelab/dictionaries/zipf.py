"""The Zipf–Mandelbrot law that latent densities follow: log density = intercept - s · log(rank + q).

Source: METHODS §1–2, after arXiv 2411.02124, which sets Feature Choice budgets by a Zipf law; the fit itself is
our reading: weighted least squares on log density, where every rank weighs 1/rank, so that each octave of ranks counts
alike and the thousands of ranks in the tail don't outvote the head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.errors import UserError

_GRID = 61  # offsets tried in each refinement
_REFINEMENTS = 10  # each narrows the bracket 30-fold at least


@dataclass(frozen=True)
class ZipfFit:
    """A fitted law.

    Standard errors come from the scatter of ranks around the line; neighbouring ranks are not independent (the curve is
    sorted), so read them as "how well does the line fit", not as a test.
    """

    s: float
    q: float
    intercept: float
    s_error: float
    q_error: float
    intercept_error: float
    r_squared: float
    n_latents: int

    def density(self, rank: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Density that the law expects of the latent of each rank (1 = most frequent)."""
        return (self.intercept - self.s * (rank.double() + self.q).log()).exp()


def fit_zipf(density: Float[Tensor, "d_sae"], points: int | None = None) -> ZipfFit:
    """Fit (s, q, intercept) to the densities of live latents (those above 0), ranked from the most frequent down.

    For a given q the rest is a straight line; q is found by narrowing a grid around the best of it, then the
    errors follow from the Jacobian at the optimum by the sandwich formula (White 1980), which does not take the weights
    for variances.

    Args:
        points: at most about so many ranks, evenly spread on a log scale and weighted for those they stand for, take
            part: quick enough for every line of a training's metrics. All, when left out.

    Raises:
        UserError: fewer than four live latents, which can't determine three numbers and their spread.
    """
    live = density[density > 0].detach().cpu().double().sort(descending=True).values
    n = len(live)
    if n < 4:
        raise UserError(f"a Zipf fit needs at least 4 latents that fired, and {n} did; evaluate on more tokens")
    rank, weight = _ranks(n, points)
    y = live[rank.long() - 1].log()

    low, high = math.log(0.01), math.log(1.0 + n)  # q + 0.99 between 0.01 and n + 1, searched on a log scale
    for _ in range(_REFINEMENTS):
        grid = torch.linspace(low, high, _GRID, dtype=torch.float64)
        losses = _line((rank + grid.exp()[:, None] - 0.99).log(), y, weight)[2]
        best, step = float(grid[losses.argmin()]), (high - low) / (_GRID - 1)
        low, high = max(low, best - step), min(high, best + step)
    q = math.exp(best) - 0.99

    x = (rank + q).log()
    slope, intercept, loss = (float(t) for t in _line(x[None], y, weight))
    jacobian = torch.stack([-x, slope / (rank + q), torch.ones_like(x)], dim=1)  # d y / d (s, q, intercept)
    bread = torch.linalg.pinv(jacobian.T @ (weight[:, None] * jacobian))
    pull = (weight * (y - intercept - slope * x))[:, None] * jacobian
    covariance = bread @ (pull.T @ pull) @ bread * (n / (n - 3))
    s_error, q_error, intercept_error = covariance.diagonal().clamp(min=0).sqrt().tolist()
    around_mean = float((weight * (y - (weight * y).sum()).square()).sum())
    r_squared = 1 - loss / around_mean if around_mean > 0 else float("nan")
    return ZipfFit(-slope, q, intercept, s_error, q_error, intercept_error, r_squared, n)


def _ranks(n: int, points: int | None) -> tuple[Float[Tensor, "ranks"], Float[Tensor, "ranks"]]:
    """Ranks that take part in a fit, and their weights: Σ 1/r over the ranks that each stands for, summing to 1."""
    every = torch.arange(1, n + 1, dtype=torch.float64)
    if points is None or n <= points:
        return every, (1 / every) / (1 / every).sum()
    chosen = torch.logspace(0, math.log10(n), points, dtype=torch.float64).round().unique()
    borders = (chosen[1:] + chosen[:-1]) / 2  # a rank stands for those nearer to it than to its neighbours
    weight = torch.zeros_like(chosen).index_add_(0, torch.bucketize(every, borders), 1 / every)
    return chosen, weight / weight.sum()


def _line(
    x: Float[Tensor, "lines n"], y: Float[Tensor, "n"], weight: Float[Tensor, "n"]
) -> tuple[Float[Tensor, "lines"], Float[Tensor, "lines"], Float[Tensor, "lines"]]:
    """Weighted straight lines through (x, y): slopes, intercepts, weighted mean squared residuals."""
    x_mean, y_mean = (weight * x).sum(-1, keepdim=True), (weight * y).sum()
    slope = (weight * (x - x_mean) * (y - y_mean)).sum(-1) / (weight * (x - x_mean).square()).sum(-1)
    intercept = y_mean - slope * x_mean[:, 0]
    residual = y - intercept[:, None] - slope[:, None] * x
    return slope, intercept, (weight * residual.square()).sum(-1)
