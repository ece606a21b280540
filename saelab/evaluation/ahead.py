"""The first rows, read ahead for the mean activation that ablates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from saelab.corpora import TokenRows
from saelab.errors import UserError
from saelab.evaluation.conditions import Text
from saelab.evaluation.found import nested, part
from saelab.evaluation.sums import RunningMean
from saelab.models import LanguageModel, Site
from saelab.ranks.axis import Axis
from saelab.ranks.turns import in_turns

Unread = Callable[[], TokenRows]
"""Rows that whoever works on them makes ready."""


class Ahead(NamedTuple):
    """What the first rows tell, and all rows, those included."""

    means: dict[Site, RunningMean]
    context: int
    """Positions of a row."""
    rows: Iterator[Unread]


def read_ahead(
    model: LanguageModel, rows: Iterable[TokenRows], sites: Sequence[Site], mean_tokens: int, text: Text, axis: Axis
) -> Ahead:
    """Mean activation at each site over the first rows, the same on all ranks.

    Args:
        mean_tokens: kept tokens from which on no further row counts.

    Raises:
        UserError: no position is kept.
    """
    iterator, ahead, seen = iter(rows), [], 0
    some: list[tuple[TokenRows, int]] = []
    while seen < mean_tokens and (chunk := next(iterator, None)) is not None:
        ahead.append(chunk := text.ready(chunk))
        kept = chunk.keep.sum(1).cumsum(0)
        enough = int((seen + kept < mean_tokens).sum()) + 1  # rows, so that the mean does not depend on chunk sizes
        seen += int(chunk.keep[:enough].sum())
        some.append((chunk, enough))
    if seen == 0:
        raise UserError("there is no token to evaluate on: the text is empty, or the token policy excludes all of it")
    means = {site: RunningMean(model.width(site)) for site in sites}

    def work(piece: tuple[TokenRows, int]) -> dict[str, Tensor]:
        chunk, enough = piece
        keep = chunk.keep[:enough].to(model.device)
        x = model.activations(chunk.ids[:enough].to(model.device, torch.int64), sites)
        return nested({str(site): mean.of(x[site][keep]) for site, mean in means.items()})

    for found in in_turns(axis, some, work, "means", everywhere=True):
        for site, mean in means.items():
            mean.take(part(found, str(site)))
    known = (partial(_as_it_is, chunk) for chunk in ahead)
    return Ahead(means, ahead[0].ids.shape[1], chain(known, (partial(text.ready, chunk) for chunk in iterator)))


def _as_it_is(rows: TokenRows) -> TokenRows:
    return rows
