"""Fidelity at the model's output, of slices of the predictions: by position in the row, by label of the next token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from saelab.evaluation.batch import CleanBatch, Comparison
from saelab.evaluation.bootstrap import Numbers, intervals
from saelab.evaluation.found import Found, part, under
from saelab.evaluation.numbers import Interval
from saelab.evaluation.slice_report import LabelSlice, PositionSlice
from saelab.evaluation.sums import DocumentSums

SINGLE = 4  # positions that have a bin each; from there on a bin ends where a power of two begins
LEAST = 10  # predictions of a label that is reported
_COLUMNS = ("predictions", "ce_clean", "ce_sae", "kl")


class Slices:
    """Sums over some slices of the predictions, which may overlap."""

    def __init__(self, n: int) -> None:
        self.n = n
        self._sums = DocumentSums([f"{column} {i}" for i in range(n) for column in _COLUMNS])

    def measure(self, batch: CleanBatch, output: Comparison, member: Bool[Tensor, "predictions n"]) -> Found:
        """What a batch's predictions come to; `member` says in which slices each of them is."""
        one = torch.ones_like(output.loss)
        terms = torch.stack([one, batch.clean_loss, output.loss, output.kl], dim=1).cpu().double()
        return self._sums.of_rows(batch.scored_documents, (member[:, :, None] * terms[:, None, :]).flatten(1))

    def take(self, found: Found) -> None:
        """Add what `measure` made."""
        self._sums.take(found)

    def numbers(self, resamples: int, seed: int) -> list[dict[str, Any]]:
        """For each slice the fields of `slice_report.Slice`."""
        total = {name: float(value) for name, value in self._of(self._sums.total()).items()}
        bounds = intervals(self._sums, self._of, resamples, seed)
        found: list[dict[str, Any]] = []
        for i in range(self.n):
            ends = {name: bounds[f"{name} {i}"] for name in ("delta_ce", "kl")}
            found.append(
                {name: total[f"{name} {i}"] for name in ("ce_clean", "ce_sae", "delta_ce", "kl")}
                | {"predictions": int(total[f"predictions {i}"])}
                | {"intervals": {name: Interval(low=low, high=high) for name, (low, high) in ends.items()}}
            )
        return found

    def _of(self, sums: Mapping[str, Tensor]) -> Numbers:
        numbers: Numbers = {}
        for i in range(self.n):
            n, clean, sae, kl = (sums[f"{column} {i}"] for column in _COLUMNS)
            of_slice = {"predictions": n, "ce_clean": clean / n, "ce_sae": sae / n, "delta_ce": (sae - clean) / n}
            numbers |= {f"{name} {i}": value for name, value in {**of_slice, "kl": kl / n}.items()}
        return numbers


class ByPosition:
    """Slices by the position at which a prediction is made.

    Args:
        context: positions of a row.
    """

    def __init__(self, context: int) -> None:
        self.bins = position_bins(context)
        self._slices = Slices(len(self.bins))
        firsts = torch.tensor([first for first, _ in self.bins])
        self._bin: Int[Tensor, "context"] = torch.bucketize(torch.arange(context), firsts, right=True) - 1
        self._positions = torch.zeros(len(self.bins), dtype=torch.int64)
        self._kept = torch.zeros_like(self._positions)

    def measure(self, batch: CleanBatch, output: Comparison) -> Found:
        """What one batch comes to."""
        bins, keep = self._bin.expand(batch.ids.shape), batch.keep.cpu()
        scored = bins[:, :-1][batch.scored.cpu()]
        return {
            "positions": torch.bincount(bins.flatten(), minlength=len(self.bins)),
            "kept": torch.bincount(bins[keep], minlength=len(self.bins)),
            **under("slices", self._slices.measure(batch, output, scored[:, None] == torch.arange(len(self.bins)))),
        }

    def take(self, found: Found) -> None:
        """Add what `measure` made."""
        self._positions += found["positions"]
        self._kept += found["kept"]
        self._slices.take(part(found, "slices"))

    def report(self, resamples: int, seed: int) -> list[PositionSlice]:
        """Every bin, from the first position on."""
        counts = zip(self.bins, self._positions.tolist(), self._kept.tolist(), strict=True)
        return [
            PositionSlice(first=first, last=last, positions=positions, excluded=positions - kept, **values)
            for ((first, last), positions, kept), values in zip(
                counts, self._slices.numbers(resamples, seed), strict=True
            )
        ]


class ByLabel:
    """Slices by the labels of the token that is predicted."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._slices = Slices(len(self.names))

    def measure(self, batch: CleanBatch, output: Comparison, labels: Bool[Tensor, "rows context labels"]) -> Found:
        """What one batch comes to."""
        return self._slices.measure(batch, output, labels[:, 1:][batch.scored.cpu()])

    def take(self, found: Found) -> None:
        """Add what `measure` made."""
        self._slices.take(found)

    def report(self, resamples: int, seed: int) -> list[LabelSlice]:
        """Every label with at least `LEAST` predictions."""
        found = zip(self.names, self._slices.numbers(resamples, seed), strict=True)
        return [LabelSlice(label=name, **values) for name, values in found if values["predictions"] >= LEAST]


def position_bins(context: int) -> list[tuple[int, int]]:
    """First and last position of each bin: 0, 1, 2, 3, 4-7, 8-15, …, the last one cut at the end of the row."""
    firsts = list(range(min(SINGLE, context)))
    following = SINGLE
    while following < context:
        firsts.append(following)
        following *= 2
    return list(zip(firsts, [*(first - 1 for first in firsts[1:]), context - 1], strict=True))
