"""One shard: its rows are collected in memory, then written file by file, each atomically."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from saelab.activations.columns import Column
from saelab.activations.config import HarvestConfig
from saelab.activations.manifest import CorpusPlace, ShardEntry
from saelab.activations.mapped import map_tensors
from saelab.activations.plan import TORCH_TYPES, gradient_type
from saelab.corpora.packing import TokenRows
from saelab.disk import ActivationPaths, sha256
from saelab.disk.tensors import write_tensors
from saelab.errors import UserError
from saelab.models import Site


class ShardBuffer:
    """Tokens and activations of up to `config.shard_rows` rows; the memory is used again for the next shard."""

    def __init__(self, config: HarvestConfig, widths: Mapping[Column, int]) -> None:
        self.config = config
        capacity = min(config.shard_rows, config.rows) * config.policy.context
        types = {False: TORCH_TYPES[config.dtype], True: gradient_type(config.dtype)}
        self.values = {c: torch.empty(capacity, width, dtype=types[c.gradient]) for c, width in widths.items()}
        self.clear()

    def clear(self) -> None:
        """Begin an empty shard."""
        self.kept = 0
        self.rows: list[TokenRows] = []
        widths = {column: values.shape[1] for column, values in self.values.items() if not column.gradient}
        self.sums = {column: torch.zeros(width, dtype=torch.float64) for column, width in widths.items()}
        self.squares = {column: torch.zeros(1, dtype=torch.float64) for column in widths}

    @property
    def n_rows(self) -> int:
        return sum(map(len, self.rows))

    def add(self, rows: TokenRows, made: Mapping[Column, Tensor]) -> None:
        """Append rows and the columns of their kept tokens."""
        end = self.kept + rows.n_kept
        for column, values in self.values.items():
            stored = values[self.kept : end].copy_(made[column])
            if not column.gradient:
                exact = stored.double()
                self.sums[column] += exact.sum(0)
                self.squares[column] += exact.square().sum()
        self.kept = end
        self.rows.append(rows)

    def write(self, paths: ActivationPaths, number: int) -> ShardEntry:
        """Write all files of shard `number`; they count once the manifest lists them."""
        for column, squares in self.squares.items():
            if not math.isfinite(squares.item()):
                raise UserError(self._why_not_finite(column.site))
        files = {paths.tokens(number): self._tokens()}
        for column, values in self.values.items():
            tensors = {column.key: values[: self.kept]}
            if not column.gradient:
                tensors |= {"sum": self.sums[column], "sum_of_squares": self.squares[column]}
            files[column.path(paths, number)] = tensors
        digests: dict[str, str] = {}
        for path, tensors in files.items():
            write_tensors(path, tensors)
            digests[path.relative_to(paths.root).as_posix()] = sha256(path)
        start = self.rows[0].start
        place = CorpusPlace(document=start.document, token=start.token, row=start.row)
        return ShardEntry(rows=self.n_rows, kept=self.kept, start=place, files=digests)

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

    def _why_not_finite(self, site: Site) -> str:
        if self.config.dtype == "fp16":
            return f"activations at {site} exceed what fp16 can hold (65504); set dtype to bf16 or fp32"
        return f"activations at {site} are not finite; try model_dtype float32, or look at the model's weights"


def shard_statistics(path: Path) -> tuple[Tensor, Tensor]:
    """Sum of x (float64 [width]) and of |x|² (float64 [1]) over a shard's kept tokens, as stored beside them."""
    tensors = map_tensors(path)
    return tensors["sum"].clone(), tensors["sum_of_squares"].clone()
