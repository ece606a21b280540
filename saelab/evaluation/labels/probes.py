"""Probes: how well a label can be read off a few latents, or off the whole activation.

A probe is a logistic regression that is fitted on some documents and judged on others. Few-latent probes choose their
latents first (`matching_pursuit`); the dense probe sees the activation itself and is the ceiling: what no latent can
show because the model does not hold it linearly, no dictionary can be blamed for.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saelab.kernels.backend import choose
from saelab.kernels.codes import SparseCodes

RIDGE = 1e-4  # of the squared weights (per standardised feature): separable labels would have infinite ones
_STEPS = 100


class Detection(NamedTuple):
    """How a detector does on each label; NaN where it is undefined (no positive, nothing detected)."""

    f1: Float[Tensor, "labels"]
    precision: Float[Tensor, "labels"]
    recall: Float[Tensor, "labels"]


def matching_pursuit(codes: SparseCodes, labels: Bool[Tensor, "tokens labels"], k: int) -> Int[Tensor, "labels k"]:
    """For each label the k latents that explain it best together, found one after another.

    Orthogonal matching pursuit with an intercept: the latent with the largest correlation to what is left of the label
    joins, then least squares over all chosen ones leaves a new rest. Two latents that say the same are so never chosen
    both. Latents that never fire come last. Our reading: METHODS asks for the best k latents, which is a search over
    all subsets.

    Args:
        labels: every label has both values.
    """
    codes = codes.positive()
    backend = choose(device=codes.values.device)
    n = codes.rows
    sums = backend.latent_sums(codes, codes.values)
    squares = backend.latent_sums(codes, codes.values.square())
    norms = (squares - sums.square() / n).clamp_min(0).sqrt()
    alive = norms > 1e-6 * squares.sqrt()
    y = labels.float()
    rest = y - y.mean(0)
    chosen = torch.zeros(labels.shape[1], 0, dtype=torch.int64, device=y.device)
    for _ in range(min(k, codes.d_sae)):
        fit = backend.row_gradients(codes, codes.values, rest).abs() / norms[:, None]  # [F, labels]
        fit[~alive] = -1.0
        fit.scatter_(0, chosen.T, -2.0)  # each at most once
        chosen = torch.cat([chosen, fit.argmax(0)[:, None]], dim=1)
        rest = torch.stack([_rest(columns(codes, chosen[i]), y[:, i]) for i in range(len(chosen))], dim=1)
    return chosen


def columns(codes: SparseCodes, latents: Int[Tensor, "k"]) -> Float[Tensor, "tokens k"]:
    """The activations of some latents as dense columns."""
    dense = codes.values.new_zeros(codes.rows, len(latents))
    order, offsets = codes.by_latent
    for column, latent in enumerate(latents.tolist()):
        matches = order[int(offsets[latent]) : int(offsets[latent + 1])]
        dense[codes.row_ids[matches], column] = codes.values[matches]
    return dense


def _rest(x: Float[Tensor, "tokens k"], y: Float[Tensor, "tokens"]) -> Float[Tensor, "tokens"]:
    """What least squares with an intercept leaves of y."""
    x, y = x - x.mean(0), y - y.mean()
    gram = (x.T @ x).double()
    weights = torch.linalg.pinv(gram, hermitian=True) @ (x.T @ y).double()
    return y - x @ weights.float()


class Probe(NamedTuple):
    """Logistic regressions, one a label: their scores on the tokens they were fitted on, and on the others."""

    fitted: Float[Tensor, "fit labels"]
    held_out: Float[Tensor, "score labels"]


class DenseProbe(NamedTuple):
    """A probe of the whole activation, and in which direction it looks."""

    probe: Probe
    direction: Float[Tensor, "d labels"]
    """In which the score rises fastest, of length 1."""


def dense_probe(
    x: Float[Tensor, "fit d"], labels: Bool[Tensor, "fit labels"], held_out: Float[Tensor, "score d"]
) -> DenseProbe:
    """All labels read off the whole activation."""
    mean, scale = _standard(x)
    standard = (x - mean) / scale
    weights, bias = _logistic(standard, labels)
    probe = Probe(standard @ weights + bias, (held_out - mean) / scale @ weights + bias)
    return DenseProbe(probe, torch.nn.functional.normalize(weights / scale.T, dim=0))


def sparse_probe(
    x: Float[Tensor, "fit k"], label: Bool[Tensor, "fit"], held_out: Float[Tensor, "score k"]
) -> tuple[Float[Tensor, "fit"], Float[Tensor, "score"]]:
    """Scores of one label read off k sparse columns, where it was fitted and on the other tokens; by Newton's method.

    Tokens on which all columns are 0 are alike, so they enter as two weighted ones: positive and negative.
    """
    scale = _standard(x)[1]
    some = (x != 0).any(1)
    nothing = x.new_zeros(2, x.shape[1])
    features = torch.cat([x[some], nothing]).double() / scale
    features = torch.cat([features, torch.ones_like(features[:, :1])], dim=1)  # the intercept
    truth = torch.cat([label[some], label.new_tensor([True, False])]).double()
    rest = label[~some]
    weight = torch.cat([torch.ones(len(truth) - 2), torch.tensor([rest.sum(), (~rest).sum()])]).double() / len(x)
    fitted = _newton(features, truth, weight).float()
    slope, bias = fitted[:-1] / scale[0], fitted[-1]
    return x @ slope + bias, held_out @ slope + bias


def _newton(
    features: Float[Tensor, "n k+1"], truth: Float[Tensor, "n"], weight: Float[Tensor, "n"]
) -> Float[Tensor, "k+1"]:
    """Minimum of the weighted logistic loss; the last feature is the intercept, which is free of the ridge."""
    ridge = torch.full_like(features[0], 2 * RIDGE)
    ridge[-1] = 1e-9  # next to nothing, so that the curvature can always be inverted
    rate = (weight @ truth).clamp(1e-9, 1 - 1e-9)
    now = torch.zeros_like(features[0])
    now[-1] = torch.logit(rate)

    def loss(at: Tensor) -> float:
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(features @ at, truth, reduction="none")
        return float(weight @ entropy + (ridge * at.square()).sum() / 2)

    least = loss(now)
    for _ in range(_STEPS):
        p = (features @ now).sigmoid()
        slope = features.T @ (weight * (p - truth)) + ridge * now
        curvature = features.T @ (features * (weight * p * (1 - p))[:, None]) + torch.diag(ridge)
        step = torch.linalg.solve(curvature, slope)
        while (reached := loss(now - step)) > least and step.abs().max() > 1e-9:
            step = step / 2  # far from the minimum a whole step can overshoot
        if least - reached < 1e-12:
            break
        now, least = now - step, reached
    return now


def _standard(x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "1 d"], Float[Tensor, "1 d"]]:
    """Mean and spread of each column; a constant column keeps its units."""
    scale = x.std(0, keepdim=True, correction=0)
    return x.mean(0, keepdim=True), torch.where(scale > 0, scale, 1.0)


@torch.enable_grad()
def _logistic(
    x: Float[Tensor, "n d"], labels: Bool[Tensor, "n labels"]
) -> tuple[Float[Tensor, "d labels"], Float[Tensor, "labels"]]:
    """Weights and intercepts that minimise the mean logistic loss of all labels, each on its own, by L-BFGS."""
    y = labels.float()
    weights = torch.zeros(x.shape[1], y.shape[1], device=y.device, requires_grad=True)
    rate = y.mean(0).clamp(1e-6, 1 - 1e-6)
    bias = torch.logit(rate).requires_grad_()  # what is right when the features say nothing
    solver = torch.optim.LBFGS([weights, bias], max_iter=_STEPS, line_search_fn="strong_wolfe", tolerance_grad=1e-5)

    def loss() -> Tensor:
        solver.zero_grad()
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(x @ weights + bias, y, reduction="sum")
        total = entropy / len(y) + RIDGE * weights.square().sum()
        total.backward()
        return total

    solver.step(loss)
    return weights.detach(), bias.detach()


def best_thresholds(scores: Float[Tensor, "n labels"], labels: Bool[Tensor, "n labels"]) -> Float[Tensor, "labels"]:
    """For each label the score from which on "detected" has the best F1: the middle between two scores that occur."""
    order = scores.argsort(dim=0, descending=True, stable=True)
    ranked = scores.gather(0, order)
    hits = labels.gather(0, order).cumsum(0)
    detected = torch.arange(1, len(scores) + 1, device=scores.device)[:, None]
    f1 = 2 * hits / (detected + labels.sum(0))
    below = torch.cat([ranked[1:], ranked[-1:] - 1])
    f1 = f1.masked_fill(ranked == below, -1)  # a threshold can't part equal scores
    best = f1.argmax(0, keepdim=True)
    return (ranked.gather(0, best) + below.gather(0, best))[0] / 2


def detection(on: Bool[Tensor, "n labels"], labels: Bool[Tensor, "n labels"]) -> Detection:
    """F1 = 2 TP / (detected + positive), precision TP / detected, recall TP / positive."""
    hits, detected, positive = ((t.sum(0)).double() for t in (on & labels, on, labels))
    return Detection(2 * hits / (detected + positive), hits / detected, hits / positive)


def auroc(scores: Float[Tensor, "n labels"], labels: Bool[Tensor, "n labels"]) -> Float[Tensor, "labels"]:
    """Share of (positive, negative) pairs in which the positive scores higher; ties count half.

    From ranks (Mann–Whitney): U / (P · N). NaN for a label without both values.
    """
    parts: list[Tensor] = []
    for of_label, truth in zip(scores.T, labels.T, strict=True):
        _, place, counts = of_label.unique(return_inverse=True, return_counts=True)
        ends = counts.cumsum(0).double()
        rank = (ends - (counts.double() - 1) / 2)[place]  # 1-based, the middle of the tied ones
        positive = truth.sum().double()
        above = rank[truth].sum() - positive * (positive + 1) / 2
        parts.append(above / (positive * (len(truth) - positive)))
    return torch.stack(parts)
