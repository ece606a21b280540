"""`Rows`: kept tokens as a table, with a column for each site (and for each site's gradients) that somebody wants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

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

    columns: Mapping[Column, Float[Tensor, "B width"]]
    tokens: Int[Tensor, "B"]
    """int64 running number of each token among the kept ones, in the corpus' order."""

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, rows: Tensor | slice) -> Rows:
        """Some of the rows: views with a slice, copies with an index tensor."""
        return Rows({column: values[rows] for column, values in self.columns.items()}, self.tokens[rows])

    def to(self, device: torch.device) -> Rows:
        """In float32 on `device`."""
        columns = {column: values.to(device, torch.float32) for column, values in self.columns.items()}
        return Rows(columns, self.tokens.to(device))

    def put(self, at: int, part: Rows) -> None:
        """Overwrite the rows from `at` on."""
        here = slice(at, at + len(part))
        for column, values in self.columns.items():
            values[here] = part.columns[column]
        self.tokens[here] = part.tokens

    def room(self, n: int) -> Rows:
        """`n` rows of unset memory with the same columns, of the same types, on the same device."""
        columns = {column: values.new_empty(n, values.shape[1]) for column, values in self.columns.items()}
        return Rows(columns, self.tokens.new_empty(n))


def concatenate(parts: Sequence[Rows]) -> Rows:
    """All rows in order; every part has the same columns."""
    if len(parts) == 1:
        return parts[0]
    columns = {column: torch.cat([part.columns[column] for part in parts]) for column in parts[0].columns}
    return Rows(columns, torch.cat([part.tokens for part in parts]))


def sites_of(columns: Iterable[Column], gradient: bool) -> list[Site]:
    """Sites whose activations (or whose gradients) are among the columns, in forward order."""
    return sorted({column.site for column in columns if column.gradient == gradient})
