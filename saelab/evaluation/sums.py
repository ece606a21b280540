"""Streaming sums behind every number of a report: fp64, one pass, the same whatever the batch size or order.

What is a mean over tokens is kept as sums per document, so that one table gives both the number and its bootstrap
interval. What belongs to a latent (how often it fires) is kept as whole counts.

`of(…)` is what one batch comes to, as named tensors that another process may have made; `take` adds it; `add` is both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from saelab.errors import UserError
from saelab.evaluation.found import Found
from saelab.kernels.codes import SparseCodes


class DocumentSums:
    """Sums of named per-token quantities, one fp64 row for each document.

    Documents are the unit that can be drawn independently; tokens of one document can't.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self._row_of: dict[int, int] = {}
        self._table = torch.zeros(0, len(self.columns), dtype=torch.float64)

    @property
    def n_documents(self) -> int:
        return len(self._row_of)

    def of(self, documents: Int[Tensor, "tokens"], values: Mapping[str, Num[Tensor, "tokens"]]) -> Found:
        """Sums of each token's values over its document; columns that are not named have 0.

        Args:
            documents: running number of the document that each token belongs to.
            values: one number a token for some of the columns.
        """
        ids, place = documents.cpu().unique(return_inverse=True)
        sums = torch.zeros(len(ids), len(self.columns), dtype=torch.float64)
        for name, value in values.items():
            sums[:, self.columns.index(name)].index_add_(0, place, value.detach().cpu().double())
        return {"document": ids, "sums": sums}

    def of_rows(self, documents: Int[Tensor, "tokens"], values: Num[Tensor, "tokens columns"]) -> Found:
        """The same for values of all columns."""
        ids, place = documents.cpu().unique(return_inverse=True)
        sums = torch.zeros(len(ids), len(self.columns), dtype=torch.float64)
        return {"document": ids, "sums": sums.index_add_(0, place, values.detach().cpu().double())}

    def take(self, found: Found) -> None:
        """Add what `of` or `of_rows` made."""
        rows = torch.tensor(
            [self._row_of.setdefault(number, len(self._row_of)) for number in found["document"].tolist()],
            dtype=torch.int64,
        )
        missing = len(self._row_of) - len(self._table)
        self._table = torch.cat([self._table, torch.zeros(missing, len(self.columns), dtype=torch.float64)])
        self._table.index_add_(0, rows, found["sums"])

    def add(self, documents: Int[Tensor, "tokens"], values: Mapping[str, Num[Tensor, "tokens"]]) -> None:
        """Add each token's values to its document; columns that are not named stay as they are."""
        self.take(self.of(documents, values))

    @property
    def documents(self) -> Int[Tensor, "documents"]:
        """Their numbers, rising."""
        return torch.tensor(sorted(self._row_of), dtype=torch.int64)

    def replaced(self, column: str, values: Float[Tensor, "documents"]) -> DocumentSums:
        """The same sums but for one column, given in the order of document numbers."""
        new = DocumentSums(self.columns)
        new._table = self.table().clone()
        new._table[:, self.columns.index(column)] = values
        new._row_of = {int(number): row for row, number in enumerate(self.documents)}
        return new

    def by_document(self) -> dict[str, Tensor]:
        """The whole table: `document` (numbers, rising) and a tensor of sums for each column."""
        return {"document": self.documents, **dict(zip(self.columns, self.table().T.contiguous(), strict=True))}

    def table(self) -> Float[Tensor, "documents columns"]:
        """The sums, rows in the order of document numbers (not of arrival)."""
        order = [row for _, row in sorted(self._row_of.items())]
        return self._table[torch.tensor(order, dtype=torch.int64)]

    def total(self) -> dict[str, Float[Tensor, ""]]:
        """Sums over all documents, by column."""
        return dict(zip(self.columns, self.table().sum(0), strict=True))


class RunningMean:
    """Mean of vectors, summed in fp64."""

    def __init__(self, d: int) -> None:
        self.n = 0
        self._sum: Float[Tensor, "d"] = torch.zeros(d, dtype=torch.float64)

    def of(self, x: Float[Tensor, "n d"]) -> Found:
        """Number and sum of some vectors (any number of them, zero too)."""
        return {"n": torch.tensor(len(x)), "sum": x.detach().cpu().double().sum(0)}

    def take(self, found: Found) -> None:
        """Add what `of` made."""
        self.n += int(found["n"])
        self._sum += found["sum"]

    def add(self, x: Float[Tensor, "n d"]) -> None:
        """Take in some vectors."""
        self.take(self.of(x))

    @property
    def mean(self) -> Float[Tensor, "d"]:
        """The mean so far, fp64; NaN before any vector was seen."""
        return self._sum / self.n if self.n else torch.full_like(self._sum, torch.nan)


class FiringCounts:
    """How often each latent fires, and how many latents fire on a token: whole numbers, exact."""

    def __init__(self, d_sae: int) -> None:
        self.d_sae = d_sae
        self.n_tokens = 0
        self.fired: Int[Tensor, "d_sae"] = torch.zeros(d_sae, dtype=torch.int64)
        self.l0_histogram: Int[Tensor, "most+1"] = torch.zeros(1, dtype=torch.int64)
        """Entry n = number of tokens on which exactly n latents fired."""

    def of(self, codes: SparseCodes) -> Found:
        """Counts of the codes above zero of one batch; a kept match whose value is 0 did not fire."""
        fired = codes.fired().cpu()
        latents = fired.nonzero()[:, 0]
        l0 = torch.bincount(codes.positive().counts).cpu()
        return {"tokens": torch.tensor(codes.rows), "latents": latents, "fired": fired[latents], "l0": l0}

    def take(self, found: Found) -> None:
        """Add what `of` made."""
        self.n_tokens += int(found["tokens"])
        self.fired[found["latents"]] += found["fired"]
        width = max(len(found["l0"]), len(self.l0_histogram))
        self.l0_histogram = _widen(self.l0_histogram, width) + _widen(found["l0"], width)

    def add(self, codes: SparseCodes) -> None:
        """Count the codes of one batch."""
        self.take(self.of(codes))

    @property
    def density(self) -> Float[Tensor, "d_sae"]:
        """Share of tokens on which each latent fired; NaN before any token was seen."""
        return self.fired.double() / self.n_tokens if self.n_tokens else torch.full((self.d_sae,), torch.nan).double()

    @property
    def l0(self) -> float:
        """Mean number of latents that fire on a token."""
        return int(self.fired.sum()) / self.n_tokens if self.n_tokens else float("nan")

    @property
    def dead(self) -> int:
        """Latents that never fired on the `n_tokens` tokens seen."""
        return int((self.fired == 0).sum())

    def l0_quantile(self, share: float) -> int | None:
        """Smallest L0 that at least `share` of the tokens do not exceed; None before any token was seen."""
        if not self.n_tokens:
            return None
        reached = self.l0_histogram.cumsum(0).double() >= share * self.n_tokens
        return int(reached.int().argmax())


def reconstruction_terms(
    x: Float[Tensor, "tokens d"], x_hat: Float[Tensor, "tokens d"], centre: Float[Tensor, "d"]
) -> dict[str, Float[Tensor, "tokens"]]:
    """The per-token terms that FVU, bias and cosine similarity are sums of, in fp64.

    Args:
        centre: a fixed point near the mean of x; the scatter is summed around it and corrected at the end.

    Raises:
        UserError: an activation or reconstruction is not finite.
    """
    x, x_hat, centre = (t.detach().cpu().double() for t in (x, x_hat, centre))
    if not (x.isfinite().all() and x_hat.isfinite().all()):
        raise UserError("the activations hold NaN or infinity, so nothing can be measured; load the model in float32")
    dot = (x * x_hat).sum(-1)
    squares, squares_hat = x.square().sum(-1), x_hat.square().sum(-1)
    lengths = (squares * squares_hat).sqrt()
    return {
        "tokens": torch.ones_like(dot),
        "residual": (x - x_hat).square().sum(-1),
        "scatter": (x - centre).square().sum(-1),
        "hat_squares": squares_hat,
        "dot": dot,
        "cosine": torch.where(lengths > 0, dot / lengths, 0.0),
    }


def _widen(counts: Int[Tensor, "n"], width: int) -> Int[Tensor, "width"]:
    return torch.nn.functional.pad(counts, (0, width - len(counts)))
