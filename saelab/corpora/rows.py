"""Rows of tokens: what each token is, where it comes from, and why it is left out where it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from functools import cached_property

import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

NO_OFFSET = -1  # of a separator or BOS
PADDING = -2


class Reason(IntEnum):
    """Why a position takes no part in training and metrics. Of several reasons the first in this order is given."""

    PADDING = 1
    """It fills up a row in which its document ends."""
    FIRST = 2
    """Among the first `policy.exclude_first` of its row."""
    SPECIAL = 3
    """A special token, under `policy.exclude_special`."""
    SINK = 4
    """Its activation at `policy.sink_site` is `policy.sink_norm` times as long as the median one of its row."""
    SAMPLED = 5
    """Left out by subsampling."""


@dataclass(frozen=True)
class Cursor:
    """The place in a corpus where the next row begins."""

    document: int = 0
    """Number of the document that the next row's first token belongs to."""
    token: int = 0
    """Tokens of it (its separator included) that earlier rows hold."""
    row: int = 0
    """Rows packed before."""
    epoch: int = 0
    """Times the whole corpus was read before."""

    def to_json(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True)
class TokenRows:
    """Consecutive rows of tokens and where each token comes from."""

    ids: Int[Tensor, "n context"]
    """int32 token ids."""
    documents: Int[Tensor, "n context"]
    """int64 number of the document in its source; padding goes with the document before it."""
    offsets: Int[Tensor, "n context"]
    """int32 index of the token in its document's text; -1 at separators and BOS, which are no text, -2 at padding."""
    excluded: UInt8[Tensor, "n context"]
    """0 where the position takes part in training and metrics, else its `Reason`."""
    start: Cursor
    """Where the first of these rows begins; `start.row` is its running number."""
    next: Cursor
    """Where the row after these begins."""
    dropped: int = 0
    """Tokens of text between `start` and `next` that no row holds, since they did not fill one."""

    def __len__(self) -> int:
        return self.ids.shape[0]

    @cached_property
    def keep(self) -> Bool[Tensor, "n context"]:
        """True at positions that take part."""
        return self.excluded == 0

    @cached_property
    def n_kept(self) -> int:
        """Positions that take part."""
        return int(self.keep.sum())

    @property
    def real(self) -> Bool[Tensor, "n context"]:
        """False at padding: predicting it counts nowhere."""
        return self.offsets != PADDING

    def first(self, n: int) -> TokenRows:
        """The first `n` rows, for work that ends with them: `next` and `dropped` stay those of all."""
        return replace(
            self, ids=self.ids[:n], documents=self.documents[:n], offsets=self.offsets[:n], excluded=self.excluded[:n]
        )

    def leave_out(self, these: Bool[Tensor, "n context"], reason: Reason) -> TokenRows:
        """The same rows without `these` positions; one that is left out already keeps its reason."""
        return replace(self, excluded=self.excluded.masked_fill(self.keep & these, reason))

    def counts(self) -> dict[str, int]:
        """Positions left out, by reason, every reason named; with `n_kept` they add up to all positions."""
        numbers = torch.bincount(self.excluded.flatten().long(), minlength=max(Reason) + 1).tolist()
        return {reason.name.lower(): numbers[reason] for reason in Reason}
