"""The tables of docs/exchange.md: `make peers && .venv-peers/bin/python -m benchmarks.exchange`."""

from __future__ import annotations

import importlib
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from benchmarks.exchange import ALLOCATIONS, Peer, distance, random_dictionary
from saelab.dictionaries.dictionary import Dictionary
from saelab.errors import UserError
from saelab.hub.formats import named
from saelab.hub.formats.probes import decided, probes

PEERS = ("saelens", "sparsify", "dictionary_learning")
D_IN, D_SAE, K, SCALE, INPUTS, SEEDS = 512, 4096, 32, 0.05, 256, (0, 1, 2)


def out_of_saelab(peer: Peer, kind: str, folder: Path) -> str:
    """Ours written by us, loaded and computed by the tool."""
    largest = 0.0
    for seed in SEEDS:
        dictionary = random_dictionary(kind, D_IN, D_SAE, K, SCALE, seed)
        try:
            named(peer.FORMAT).write(dictionary, folder / f"{seed}")
        except UserError:
            return "refused"
        largest = max(largest, apart(dictionary, peer, folder / f"{seed}"))
    return f"{largest:.1e}"


def into_saelab(peer: Peer, kind: str, folder: Path) -> str:
    """Theirs saved by the tool, read by us."""
    largest = 0.0
    for seed in SEEDS:
        peer.save(peer.random(kind, D_IN, D_SAE, K, seed), folder / f"{seed}")
        largest = max(largest, apart(named(peer.FORMAT).read(folder / f"{seed}").dictionary, peer, folder / f"{seed}"))
    return f"{largest:.1e}"


def apart(dictionary: Dictionary, peer: Peer, folder: Path) -> float:
    x = probes(dictionary, INPUTS)
    x = x[decided(dictionary, x)]
    assert len(x) > INPUTS // 2
    return distance(peer.reconstruct(peer.load(folder), x), dictionary(x))


def tables() -> Iterator[str]:
    peers = []
    for name in PEERS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peers.append(cast(Peer, importlib.import_module(f"benchmarks.exchange.{name}")))
    yield f"| saelab's | {' | '.join(peer.FORMAT for peer in peers)} |"
    yield "|---" * (len(peers) + 1) + "|"
    for kind in ALLOCATIONS:
        with tempfile.TemporaryDirectory() as folder:
            cells = [out_of_saelab(peer, kind, Path(folder) / peer.FORMAT) for peer in peers]
        yield f"| {kind} | {' | '.join(cells)} |"
    yield ""
    yield "| theirs | into saelab |"
    yield "|---|---|"
    for peer in peers:
        for kind in peer.KINDS:
            with tempfile.TemporaryDirectory() as folder:
                yield f"| {peer.FORMAT}: {kind} | {into_saelab(peer, kind, Path(folder))} |"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for line in tables():
        print(line, flush=True)
