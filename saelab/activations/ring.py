"""`Ring`: memory for one group of rows, in which the next group grows where rows of this one were delivered."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from saelab.activations.columns import Rows


class Ring:
    """At most `capacity` rows.

    Row i of a group lies in any place; row i of the next group takes the place of the i-th row that was delivered. So
    two groups that are delivered in a random order share the memory of one.

    Attributes:
        rows: the memory, once rows were put.
        filled: rows of the group that are there, from its first on.
        ahead: rows of the next group that are there; the same number of delivered rows is gone.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.rows: Rows | None = None
        self.clear()

    def clear(self) -> None:
        """Forget what is there; the memory stays."""
        self._places = torch.arange(self.capacity)
        self._free = self._places[:0]
        self.filled = self.ahead = 0

    @property
    def room(self) -> int:
        """Rows that can be put."""
        return self.capacity - self.filled + len(self._free) - self.ahead

    def put(self, rows: Rows) -> Rows | None:
        """Add as many rows as there is room for, to the group and then to the next one; give back the others."""
        if self.rows is None:
            self.rows = rows.room(self.capacity, rows.tokens.device)
        fits = min(len(rows), self.room)
        free = torch.cat([self._places[self.filled :], self._free[self.ahead :]])[:fits]
        self.rows.put(free.to(rows.tokens.device), rows.take(slice(0, fits)))
        of_group = min(fits, self.capacity - self.filled)
        self.filled, self.ahead = self.filled + of_group, self.ahead + fits - of_group
        return rows.take(slice(fits, None)) if fits < len(rows) else None

    def take(self, rows: Int[Tensor, "n"]) -> Rows:
        """Copies of some rows of the group."""
        assert self.rows is not None  # rows were put
        return self.rows.take(self._places[rows])

    def deliver(self, rows: Int[Tensor, "n"]) -> None:
        """These rows of the group are all that was delivered so far: the next group may take their places."""
        self._free = self._places[rows]

    def turn(self) -> None:
        """The next group becomes the group: all rows that were not delivered make room for it too."""
        kept = torch.ones(self.capacity, dtype=torch.bool)
        kept[self._free] = False
        self._places, self._free = torch.cat([self._free, kept.nonzero()[:, 0]]), self._free[:0]
        self.filled, self.ahead = self.ahead, 0
