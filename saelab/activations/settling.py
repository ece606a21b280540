"""The last step of a harvest: entries into the manifest, shards' statistics into the directory's."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from saelab.activations.ledger import Ledger
from saelab.activations.manifest import SCHEMA_VERSION, CorpusPlace, Manifest, SiteEntry
from saelab.activations.shards import shard_statistics, shard_storage_error
from saelab.errors import UserError


def settle(ledger: Ledger, left_over: Callable[[CorpusPlace], int | None]) -> Manifest:
    """Write the finished manifest of all shards, where it is not there yet, and remove the entries.

    Args:
        left_over: from the end of the last shard to the tokens of text behind it; asked while it is unknown.

    Raises:
        UserError: the shards do not follow one another in the text, or nothing was kept.
    """
    manifest = _gathered(ledger, left_over)
    if manifest != ledger.manifest:
        manifest.save(ledger.directory)
    ledger.clear_entries()
    return manifest


def _gathered(ledger: Ledger, left_over: Callable[[CorpusPlace], int | None]) -> Manifest:
    before = ledger.manifest
    if before.finished and all(before.shards[number] == ledger.shards[number] for number in ledger.waiting):
        return before
    if absent := ledger.absent():
        raise UserError(f"shard {absent[0]} of {ledger.directory} is not there; run the same harvest again")
    shards = [ledger.shards[number] for number in range(len(ledger.shards))]
    for number, shard in enumerate(shards):
        if shard.start != ledger.ends.get(number - 1, shard.start):
            raise UserError(
                f"shard {number} of {ledger.directory} does not begin where shard {number - 1} ends: the text has "
                "changed, or is not the same for all ranks; --overwrite starts anew"
            )
    if ledger.n_kept == 0:
        raise UserError(f"the policy excludes every token of corpus {before.config.corpus.source!r}; nothing to keep")
    end = ledger.ends[len(shards) - 1]
    return before.model_copy(
        update={
            "schema_version": SCHEMA_VERSION,
            "finished": True,
            "sites": {site: _site(ledger, site, entry.width) for site, entry in before.sites.items()},
            "n_tokens": ledger.n_tokens,
            "n_kept": ledger.n_kept,
            "next": end,
            "left_over": before.left_over if before.finished else left_over(end),
            "shards": shards,
        }
    )


def _site(ledger: Ledger, site: str, width: int) -> SiteEntry:
    """The statistics that the shards carry, added up."""
    total = torch.zeros(width, dtype=torch.float64)
    squares = error = computed = 0.0
    paths = [ledger.paths.activations(site, number) for number in range(len(ledger.shards))]
    for path in paths:
        of_shard, squares_of_shard = shard_statistics(path)
        total += of_shard
        squares += squares_of_shard.item()
    if known := all(site in shard.squares for shard in ledger.shards.values()):  # shards of version 1 do not tell
        for path in paths:
            error, computed = (a + b for a, b in zip((error, computed), shard_storage_error(path), strict=True))
    return SiteEntry(
        width=width,
        scale=math.sqrt(width * ledger.n_kept / squares) if squares else 1.0,
        mean=(total / ledger.n_kept).tolist(),
        storage_error=(error / computed if computed else 0.0) if known else None,
    )
