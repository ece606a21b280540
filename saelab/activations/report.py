"""What a harvest has come to: the end of `saelab harvest`, and what `saelab inspect` says of its directory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from saelab.activations.ledger import Ledger
from saelab.progress import si


class Made(NamedTuple):
    """What one call of `harvest` has done."""

    numbers: list[int]
    """Shards, made by all ranks."""
    seconds: float
    """From the first one's beginning to the last one's end."""


def report(ledger: Ledger, made: Made | None = None) -> Iterator[tuple[str, str]]:
    """Name–value lines on what is there, and on what was done just now."""
    manifest, shards = ledger.manifest, ledger.shards
    yield "tokens", f"{ledger.n_tokens:,} read, {ledger.n_kept:,} of them stored"
    yield "left out", _left_out(ledger)
    if lost := sum(shard.dropped for shard in shards.values()) + (manifest.left_over or 0):
        yield "in no row", f"{lost:,} tokens of text, which did not fill one"
    yield "size", f"{ledger.bytes() / 1e9:.3f} GB in {len(shards)} shards"
    stored = f"{manifest.config.dtype}{' and gradients' if manifest.config.gradients else ''}"
    errors = [f"{entry.storage_error:.1e} at {site}" for site, entry in manifest.sites.items() if entry.storage_error]
    yield "stored as", f"{stored}{', which takes away of E|x|²: ' if errors else ''}{', '.join(errors)}"
    for number, shard in sorted(shards.items()):
        if shard.rounding is not None:
            yield "made again", f"shard {number}, by a machine that rounds differently (by up to {shard.rounding:.1e})"
    if made is not None:
        tokens = sum(shards[number].rows for number in made.numbers) * manifest.config.policy.context
        rate = f", {si(tokens / made.seconds)} tokens/s" if tokens else ""
        yield "done", f"{len(made.numbers)} shards in {made.seconds:.1f} s{rate}"


def _left_out(ledger: Ledger) -> str:
    """By reason; shards of version 1 do not tell the reasons."""
    reasons = sum((Counter(shard.excluded) for shard in ledger.shards.values()), Counter[str]())
    untold = ledger.n_tokens - ledger.n_kept - reasons.total()
    clauses = [f"{n:,} {reason}" for reason, n in reasons.items()] + [f"{untold:,} by the policy"] * bool(untold)
    return ", ".join(clauses) or "none"
