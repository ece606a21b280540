"""One shard: its rows are collected in memory, then written file by file, each atomically."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.activations.columns import Column
from saelab.activations.config import HarvestConfig
from saelab.activations.manifest import CorpusPlace, ShardEntry
from saelab.activations.mapped import map_tensors
from saelab.activations.stored import decode, encode, storage_type
from saelab.activations.subsample import drawn, most_drawn
from saelab.corpora.rows import Reason, TokenRows
from saelab.disk import ActivationPaths, sha256
from saelab.disk.tensors import write_tensors
from saelab.errors import UserError

_PART = 2**16  # numbers whose sums are taken at once on a CPU


class ShardBuffer:
    """Tokens and activations of up to `config.shard_rows` rows; the memory is used again for the next shard.

    Attributes:
        rows: what was added, with the tokens that `config.subsample` does not draw left out.
        kept: tokens that are stored.
        sums, squares: Σ x and Σ |x|² of the activations as stored.
        errors, computed_squares: Σ |x − stored|² and Σ |x|² of the activations as the model computed them.
    """

    def __init__(self, config: HarvestConfig, widths: Mapping[Column, int]) -> None:
        self.config, self.widths = config, widths
        self.types = {column: storage_type(config.dtype, column.gradient) for column in widths}
        self.values: dict[Column, Tensor] = {}
        self.row_scales: dict[Column, Tensor] = {}
        self.clear()
        self._make_room(most_drawn(min(config.shard_rows, config.rows) * config.policy.context, config.subsample))

    def clear(self) -> None:
        """Begin an empty shard."""
        self.kept = 0
        self.rows: list[TokenRows] = []
        activations = [column for column in self.widths if not column.gradient]
        self.sums = {column: torch.zeros(self.widths[column], dtype=torch.float64) for column in activations}
        self.squares, self.errors, self.computed_squares = (
            {column: torch.zeros(1, dtype=torch.float64) for column in activations} for _ in range(3)
        )

    @property
    def n_rows(self) -> int:
        return sum(map(len, self.rows))

    def add(self, rows: TokenRows, made: Mapping[Column, Tensor]) -> None:
        """Append rows and the columns of their kept tokens."""
        if self.config.subsample < 1:
            stored = drawn(rows, self.config.subsample, self.config.corpus.seed)
            chosen = stored[rows.keep].nonzero()[:, 0]
            made = {column: values.index_select(0, chosen.to(values.device)) for column, values in made.items()}
            rows = rows.leave_out(~stored, Reason.SAMPLED)
        end = self.kept + rows.n_kept
        self._make_room(end)
        for column, room in self.values.items():
            values, scale = encode(made[column], self.types[column])
            room[self.kept : end] = values
            if scale is not None:
                self.row_scales[column][self.kept : end] = scale
            if not column.gradient:
                self._count(column, made[column], decode(values, scale))
        self.kept = end
        self.rows.append(rows)

    def write(self, paths: ActivationPaths, number: int) -> ShardEntry:
        """Write all files of shard `number`; they count once the manifest lists them."""
        for column, squares in self.squares.items():
            if not math.isfinite(squares.item() + self.computed_squares[column].item()):
                raise UserError(self._why_not_finite(column))
        files = {paths.tokens(number): self._tokens()}
        files |= {column.path(paths, number): self._tensors(column) for column in self.widths}
        digests: dict[str, str] = {}
        for path, tensors in files.items():
            write_tensors(path, tensors)
            digests[path.relative_to(paths.root).as_posix()] = sha256(path)
        start = self.rows[0].start
        place = CorpusPlace(document=start.document, token=start.token, row=start.row)
        return ShardEntry(rows=self.n_rows, kept=self.kept, start=place, files=digests)

    def _make_room(self, tokens: int) -> None:
        """Memory for so many; it grows where a draw gave more than one may expect."""
        for column, width in self.widths.items():
            stored = self.types[column]
            held = self.values.get(column)
            if held is not None and len(held) >= tokens:
                continue
            self.values[column] = self._grown(held, torch.empty(tokens, width, dtype=stored))
            if stored == torch.int8:
                self.row_scales[column] = self._grown(self.row_scales.get(column), torch.empty(tokens))

    def _grown(self, held: Tensor | None, room: Tensor) -> Tensor:
        if held is not None:
            room[: self.kept] = held[: self.kept]
        return room

    def _count(self, column: Column, x: Float[Tensor, "n width"], stored: Float[Tensor, "n width"]) -> None:
        """Add to the sums, in float64: on a CPU a part that its cache holds at a time, else with one copy back."""
        exact = self.types[column] in (x.dtype, torch.float32)
        part = max(_PART // x.shape[1], 1) if x.device.type == "cpu" else max(len(x), 1)
        sums = torch.stack(list(map(partial(_sums, exact), x.split(part), stored.split(part)))).sum(0).cpu()
        self.sums[column] += sums[:-3]
        for which, value in zip((self.squares, self.errors, self.computed_squares), sums[-3:], strict=True):
            which[column] += value

    def _tensors(self, column: Column) -> dict[str, Tensor]:
        tensors = {column.key: self.values[column][: self.kept]}
        if column in self.row_scales:
            tensors["row_scale"] = self.row_scales[column][: self.kept]
        if column.gradient:
            return tensors
        return tensors | {
            "sum": self.sums[column],
            "sum_of_squares": self.squares[column],
            "squared_error": self.errors[column],
            "computed_sum_of_squares": self.computed_squares[column],
        }

    def _tokens(self) -> dict[str, Tensor]:
        """Every token of the shard's rows, excluded ones too, one after another."""
        context = self.config.policy.context
        first = self.rows[0].start.row
        row = torch.arange(first, first + self.n_rows, dtype=torch.int32)
        return {
            "ids": torch.cat([rows.ids for rows in self.rows]).flatten(),
            "document": torch.cat([rows.documents for rows in self.rows]).flatten(),
            "position": torch.arange(context, dtype=torch.int32).repeat(self.n_rows),
            "row": row.repeat_interleave(context),
            "keep": torch.cat([rows.keep for rows in self.rows]).flatten(),
        }

    def _why_not_finite(self, column: Column) -> str:
        site = column.site
        if self.config.dtype == "fp16" and math.isfinite(self.computed_squares[column].item()):
            return f"activations at {site} exceed what fp16 can hold (65504); set dtype to bf16 or fp32"
        return f"activations at {site} are not finite; try model_dtype float32, or look at the model's weights"


def shard_statistics(path: Path) -> tuple[Tensor, Tensor]:
    """Sum of x (float64 [width]) and of |x|² (float64 [1]) over a shard's kept tokens, as stored beside them."""
    tensors = map_tensors(path)
    return tensors["sum"].clone(), tensors["sum_of_squares"].clone()


def shard_storage_error(path: Path) -> tuple[float, float]:
    """Sum of |x − stored|² and of |x|² over a shard's kept tokens, x as the model computed it."""
    tensors = map_tensors(path)
    return tensors["squared_error"].item(), tensors["computed_sum_of_squares"].item()


def _sums(exact: bool, x: Float[Tensor, "n width"], stored: Float[Tensor, "n width"]) -> Float[Tensor, "width+3"]:
    """Σ stored, then Σ |stored|², Σ |x − stored|² and Σ |x|²; `exact` says that both are the same."""
    of_stored = _float64(stored)
    total, squares = of_stored.sum(0), of_stored.square_().sum()
    if exact:
        return torch.cat([total, torch.stack([squares, torch.zeros_like(squares), squares])])
    error, computed = _float64(x.float() - stored).square_().sum(), _float64(x).square_().sum()
    return torch.cat([total, torch.stack([squares, error, computed])])


def _float64(x: Tensor) -> Tensor:
    """In memory of its own; Apple's GPU has no float64."""
    return (x.cpu() if x.device.type == "mps" else x).to(torch.float64, copy=True)
