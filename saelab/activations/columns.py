"""`Rows`: kept tokens as a table, with a column for each site (and for each site's gradients) that somebody wants."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from saelab.activations.stored import decode
from saelab.disk import ActivationPaths
from saelab.models import Site


class Column(NamedTuple):
    """One vector of every token."""

    site: Site
    gradient: bool = False
    """The gradient of the model's summed loss with respect to the activation, in place of the activation."""

    @property
    def key(self) -> str:
        """Name of its tensor in a shard's file."""
        return "grad" if self.gradient else "x"

    def path(self, paths: ActivationPaths, shard: int) -> Path:
        """That file."""
        of = paths.gradients if self.gradient else paths.activations
        return of(str(self.site), shard)


@dataclass(frozen=True)
class Rows:
    """B kept tokens and their columns, in whatever type and wherever they were made."""

    columns: Mapping[Column, Shaped[Tensor, "B width"]]
    tokens: Int[Tensor, "B"]
    """int64 running number of each token among the kept ones, in the corpus' order."""
    row_scales: Mapping[Column, Float[Tensor, "B"]] = field(default_factory=dict)
    """What each row of an int8 column is multiplied with."""

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, rows: Tensor | slice) -> Rows:
        """Some of the rows: views with a slice, copies with an index tensor."""
        if isinstance(rows, slice):
            return self._each(lambda values: values[rows])
        there = rows.to(self.tokens.device)
        return self._each(lambda values: values.index_select(0, there))

    def to(self, device: torch.device) -> Rows:
        """In float32 on `device`."""
        scales = {column: scale.to(device) for column, scale in self.row_scales.items()}
        columns = {c: decode(values.to(device), scales.get(c)) for c, values in self.columns.items()}
        return Rows(columns, self.tokens.to(device))

    def put(self, at: Tensor | slice, part: Rows) -> None:
        """Overwrite the rows at `at` with those of `part`."""
        for column, values in self.columns.items():
            values[at] = part.columns[column]
        for column, scales in self.row_scales.items():
            scales[at] = part.row_scales[column]
        self.tokens[at] = part.tokens

    def room(self, n: int, device: torch.device) -> Rows:
        """`n` rows of unset memory with the same columns, of the same types."""
        return self._each(lambda values: values.new_empty((n, *values.shape[1:]), device=device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Rows:
        columns = {column: change(values) for column, values in self.columns.items()}
        return Rows(columns, change(self.tokens), {column: change(scale) for column, scale in self.row_scales.items()})


def concatenate(parts: Sequence[Rows]) -> Rows:
    """All rows in order; every part has the same columns, in float32."""
    if len(parts) == 1:
        return parts[0]
    columns = {column: torch.cat([part.columns[column] for part in parts]) for column in parts[0].columns}
    return Rows(columns, torch.cat([part.tokens for part in parts]))


def sites_of(columns: Iterable[Column], gradient: bool) -> list[Site]:
    """Sites whose activations (or whose gradients) are among the columns, in forward order."""
    return sorted({column.site for column in columns if column.gradient == gradient})
