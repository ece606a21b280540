"""Edits of an activation by few latents: which ones, in which order, and how much of the activation they are.

Source: arXiv 2405.08366, test 2 (METHODS §5). Of the source's active latents some are removed (R), of the target's
some are added (A), `|R ∪ A| ≤ k`: `a_s − Σ_R α_i u_i + Σ_A β_i u_i` should come near `a_t`. Our reading: an edited
latent takes its code in the target, so a latent that is active in both is in R and in A at once, and counts once. The
other reading (`together=False`): removing it is one edit, adding it is another, and `|R| + |A| ≤ k`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saelab.evaluation.ioi.features import Features
from saelab.kernels.codes import SparseCodes, row_offsets

_TILE_ELEMENTS = 2**24  # numbers held at once while changes are compared: 64 MB


@dataclass(frozen=True, eq=False)
class EditPath:
    """One latent after the other for every prompt; the first k steps are the edit of budget k.

    Attributes:
        source: activations that are edited.
        latents: what is edited in each step, -1 where an edit has ended.
        change: by how much its code changes, β − α.
        share: of every step the removed part, `(α_i u_i)·(a_hat − b) / |a_hat − b|²`; 0 where nothing is removed.
    """

    source: Float[Tensor, "n d"]
    vectors: Float[Tensor, "F d"]
    latents: Int[Tensor, "n steps"]
    change: Float[Tensor, "n steps"]
    share: Float[Tensor, "n steps"]

    @classmethod
    def of(
        cls,
        source: Float[Tensor, "n d"],
        vectors: Float[Tensor, "F d"],
        latents: Int[Tensor, "n steps"],
        removed: Float[Tensor, "n steps"],
        added: Float[Tensor, "n steps"],
        deviation: Float[Tensor, "n d"],
    ) -> EditPath:
        """The path that takes away codes α (`removed`) and puts in β (`added`) step by step.

        Args:
            deviation: `a_hat − b` of the source, the sum of all its latents.
        """
        along = torch.stack([(vectors[step.clamp(min=0)] * deviation).sum(1) for step in latents.unbind(1)], dim=1)
        share = removed * along / deviation.square().sum(1, keepdim=True)
        return cls(source, vectors, latents, added - removed, torch.where(removed != 0, share, 0.0))

    @property
    def longest(self) -> int:
        """Steps of the longest edit."""
        return int((self.latents >= 0).sum(1).max())

    def edited(self, budgets: Iterable[int]) -> dict[int, Float[Tensor, "n d"]]:
        """The edited activations of every budget."""
        wanted, x = set(budgets), self.source
        found = {k: x for k in wanted if k <= 0}
        for step in range(min(self.latents.shape[1], max(wanted, default=0))):
            x = x + self.change[:, step, None] * self.vectors[self.latents[:, step].clamp(min=0)]
            found |= {step + 1: x} if step + 1 in wanted else {}
        return found | dict.fromkeys(wanted - found.keys(), x)

    def magnitude(self, budget: int) -> Float[Tensor, "n"]:
        """Edit magnitude `Σ_R (α_i u_i)·(a_hat − b) / |a_hat − b|²`: 1 when everything is removed."""
        return self.share[:, :budget].sum(1)


class Candidates(NamedTuple):
    """What can be edited, padded to the most that a prompt has; padding is -1 and has no codes."""

    latents: Int[Tensor, "n most"]
    removed: Float[Tensor, "n most"]
    added: Float[Tensor, "n most"]

    @classmethod
    def of(cls, source: SparseCodes, target: SparseCodes, together: bool = True) -> Candidates:
        """Latents with a code in source or target; `together`, one that has both is one candidate, else it is two."""
        F, n = source.d_sae, source.rows
        kinds = F if together else 2 * F
        additions = target.latents + (kinds - F)
        matches = torch.cat([source.row_ids * kinds + source.latents, target.row_ids * kinds + additions])
        found, place = matches.unique(return_inverse=True)
        rows = torch.div(found, kinds, rounding_mode="floor")
        offsets = row_offsets(rows, n)
        column = torch.arange(len(found), device=found.device) - offsets[rows]
        most = max(1, int(offsets.diff().max()))
        latents = found.new_full((n, most), -1)
        latents[rows, column] = found % kinds % F
        removed, added = source.values.new_zeros(2, n, most).unbind(0)
        before, after = place[: source.nnz], place[source.nnz :]
        removed[rows[before], column[before]] = source.values
        added[rows[after], column[after]] = target.values
        return cls(latents, removed, added)

    def split(self, rows: int) -> list[Candidates]:
        """Consecutive prompts, so many at a time."""
        return [Candidates(*parts) for parts in zip(*(part.split(rows) for part in self), strict=True)]

    def taken(self, columns: Int[Tensor, "n steps"], is_step: Bool[Tensor, "n steps"]) -> Candidates:
        """Candidates in the order of `columns`; padding where there is no step."""
        latents, removed, added = (part.gather(1, columns) for part in self)
        return Candidates(torch.where(is_step, latents, -1), removed * is_step, added * is_step)


def greedy_path(
    features: Features,
    source: Float[Tensor, "n d"],
    target: Float[Tensor, "n d"],
    source_codes: SparseCodes,
    target_codes: SparseCodes,
    most: int,
    together: bool = True,
) -> EditPath:
    """Agnostic edits: in each step the latent whose change brings the activation nearest to the target.

    A step with change c lowers `|r|²`, r what is still missing, by `2 r·c − |c|²`; inner products of all candidates are
    computed once per prompt, and a path ends where no latent lowers it. All budgets up to `most` share one path.
    """
    candidates = Candidates.of(source_codes, target_codes, together)
    width, d = candidates.latents.shape[1], source.shape[1]
    rows = max(1, _TILE_ELEMENTS // (width * (d + width)))
    parts = [
        _greedy(features.vectors, some, missing, min(most, width))
        for some, missing in zip(candidates.split(rows), (target - source).split(rows), strict=True)
    ]
    steps = Candidates(*(torch.cat(part) for part in zip(*parts, strict=True)))
    return EditPath.of(source, features.vectors, *steps, features.reconstruct(source_codes) - features.bias)


def _greedy(
    vectors: Float[Tensor, "F d"], candidates: Candidates, missing: Float[Tensor, "n d"], steps: int
) -> Candidates:
    """The candidates in the order in which they are taken."""
    changes = vectors[candidates.latents.clamp(min=0)] * (candidates.added - candidates.removed)[..., None]
    between = changes @ changes.mT
    gain = 2 * (changes @ missing[..., None])[..., 0] - between.diagonal(dim1=1, dim2=2)
    rows, order, taken = torch.arange(len(gain), device=gain.device), [], []
    for _ in range(steps):
        best, column = gain.max(dim=1)
        useful = best > 0
        gain = gain - 2 * between[rows, column] * useful[:, None]
        gain[rows, column] = -torch.inf
        order.append(column)
        taken.append(useful)
    return candidates.taken(torch.stack(order, dim=1), torch.stack(taken, dim=1))


def guided_path(
    features: Features,
    source: Float[Tensor, "n d"],
    source_codes: SparseCodes,
    target_codes: SparseCodes,
    f1: Float[Tensor, "values F"],
    values: tuple[Int[Tensor, "n"], Int[Tensor, "n"]],
    most: int,
    together: bool = True,
) -> EditPath:
    """Interpretation-guided edits: the latents with the highest F1 for the source's and the target's value.

    Our reading of the order: the source's active latents are ranked by F1 for the source's value, the target's by F1
    for the target's; the best of each come first (the higher F1 before the other), then the second best, and so on.

    Args:
        f1: of every value of the attribute that is edited and every latent.
        values: the attribute's value in source and target.
    """
    candidates = Candidates.of(source_codes, target_codes, together)
    key = torch.full_like(candidates.removed, torch.inf)
    for value, codes in zip(values, (candidates.removed, candidates.added), strict=True):
        score = torch.where(codes != 0, f1.to(key)[value[:, None], candidates.latents.clamp(min=0)], -torch.inf)
        rank = score.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        key = key.minimum(torch.where(codes != 0, 2 * rank + 1 - score, torch.inf))
    order = key.argsort(dim=1, stable=True)[:, :most]
    steps = candidates.taken(order, key.gather(1, order).isfinite())
    return EditPath.of(source, features.vectors, *steps, features.reconstruct(source_codes) - features.bias)
