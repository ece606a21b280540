"""How fast is a feature index of full size? Builds one from synthetic codes and times what a latent's page asks of it.

    python benchmarks/features.py --latents 24576 --tokens 1000000 --k 32

No language model runs: codes come from a random law in which few latents fire often and most seldom (density of rank r
∝ (r + 20)^-0.9), tokens from a Zipf law; logit weights and neighbours are random rows of the right shape. Everything
else is what `saelab index` does, by the same code.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from saelab.disk import write_json
from saelab.features import FeatureIndex, IndexConfig, schema
from saelab.features.coactivation import PairCounts
from saelab.features.effects import chosen_rows
from saelab.features.spill import SortedRuns
from saelab.features.summaries import Sampling
from saelab.features.tables import TableWriter
from saelab.features.text import TextColumns
from saelab.features.write import LatentTables, write_tokens

CONTEXT, VOCABULARY, BATCH = 256, 50_257, 8_192
PAIRS = 20_000_000
TOP = {"logits": 12, "neighbours": 10}


class Clock:
    """CPU seconds by stage (this process alone, whatever else the machine does)."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.process_time()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - started


def build(root: Path, latents: int, tokens: int, k: int, labels: int, buffer: int, clock: Clock) -> None:
    """Write a synthetic index to `root`."""
    draw = np.random.default_rng(0)
    density = (np.arange(latents) + 20.0) ** -0.9
    cumulative = np.cumsum(draw.permutation(density / density.sum()))
    names = tuple(f"label {n}" for n in range(labels))
    spill = root.with_suffix(".spill")
    text = TextColumns(spill / "text", CONTEXT, names)
    runs = SortedRuns(spill / "activations", latents, buffer)
    pairs = PairCounts(spill / "pairs", latents, buffer)
    stride = max(1, round(tokens * k**2 / PAIRS))
    for batch, begin in enumerate(range(0, tokens, BATCH)):
        n = BATCH
        codes = np.sort(np.searchsorted(cumulative, draw.random((n, k))).clip(max=latents - 1), axis=1)
        distinct = np.diff(codes, axis=1, prepend=-1) > 0
        counts = distinct.sum(axis=1)
        values = draw.exponential(size=int(counts.sum())).astype(np.float32)
        ids = (draw.zipf(1.3, (n // CONTEXT, CONTEXT)) - 1) % VOCABULARY
        documents = (begin + np.arange(n)).reshape(-1, CONTEXT) // 400
        flags = draw.random((n // CONTEXT, CONTEXT, labels)) < 0.06 if labels else None
        with clock.stage("spill"):
            runs.append(codes[distinct], np.repeat(begin + np.arange(n), counts), values)
            every = np.ones(ids.shape, bool)
            text.append(ids, documents, every, every, np.ones((n // CONTEXT, CONTEXT - 1), np.float32), flags)
        if batch % stride == 0:
            with clock.stage("co-activation"):
                pairs.add(codes[distinct], np.concatenate([[0], np.cumsum(counts)]))
    text.refresh()
    with clock.stage("spill"):
        runs.flush()
    with clock.stage("sweep"):
        tables = LatentTables(runs, text, Sampling(20, 8, 0), len(text))
        tables.write(root, spill / "mass", VOCABULARY)
    with clock.stage("tokens"), TableWriter(schema.TOKENS, root) as writer:
        write_tokens(text, writer)
    with clock.stage("co-activation"), TableWriter(schema.COACTIVATION, root) as writer:
        pairs.write(writer)
    fill(root, latents, draw)
    with clock.stage("choice of rows for effects"):
        write_random_effects(root, draw)
    write_json(
        schema.summary_path(root),
        {
            "schema_version": schema.SCHEMA_VERSION, "d_sae": latents, "context": CONTEXT,
            "n_tokens": len(text), "n_positions": len(text), "n_activations": tables.n_activations, "groups": [],
        },
    )  # fmt: skip
    shutil.rmtree(spill)


def fill(root: Path, latents: int, draw: np.random.Generator) -> None:
    """Random rows for the tables that come from the weights."""
    with TableWriter(schema.LOGITS, root) as writer:
        n = 2 * TOP["logits"]
        writer.append(
            {
                "latent": np.repeat(np.arange(latents), n),
                "sign": np.tile(np.repeat([1, -1], TOP["logits"]), latents),
                "rank": np.tile(np.arange(TOP["logits"]), 2 * latents),
                "id": draw.integers(0, VOCABULARY, n * latents),
                "weight": draw.normal(size=n * latents),
            }
        )
    with TableWriter(schema.NEIGHBOURS, root) as writer:
        n = TOP["neighbours"]
        writer.append(
            {
                "latent": np.repeat(np.arange(latents), n),
                "rank": np.tile(np.arange(n), latents),
                "neighbour": draw.integers(0, latents, n * latents),
                "cosine": draw.random(n * latents),
            }
        )
    with TableWriter(schema.VOCABULARY, root) as writer:
        writer.append({"id": np.arange(VOCABULARY), "text": [f" word{n}" for n in range(VOCABULARY)]})


def write_random_effects(root: Path, draw: np.random.Generator) -> None:
    """Random effects of the top examples that the default budget reaches; choosing them is the index's own work."""
    columns = ["latent", "token", "rank"]
    top = pq.read_table(schema.EXAMPLES.path(root), columns=columns, filters=[("quantile", "==", 0)])
    latent, token, rank = (top[name].to_numpy().astype(np.int64) for name in columns)
    rows = chosen_rows(latent, token // CONTEXT, rank, IndexConfig(run=root).effect_tokens, CONTEXT)
    known = np.isin(token // CONTEXT, rows)
    with TableWriter(schema.EFFECTS, root) as writer:
        effect = draw.normal(size=int(known.sum()))
        writer.append({"latent": latent[known], "token": token[known], "effect": effect})


def page(index: FeatureIndex, latent: int) -> None:
    """Everything that a latent's page shows."""
    index.latent(latent)
    index.examples(latent)
    index.logits(latent)
    index.neighbours(latent)
    index.coactive(latent)
    index.labels(latent)
    index.activations(latent, limit=1000)


def timed(action: Callable[[int], object], arguments: np.ndarray) -> dict[str, float]:
    """Milliseconds over calls with each argument: on the clock, and of processor time (which a busy machine spares)."""
    clock, processor = [], []
    for argument in arguments.tolist():
        started, spent = time.perf_counter(), time.process_time()
        action(argument)
        clock.append(1e3 * (time.perf_counter() - started))
        processor.append(1e3 * (time.process_time() - spent))
    return {
        "p50": round(float(np.median(clock)), 2),
        "p95": round(float(np.quantile(clock, 0.95)), 2),
        "cpu_p50": round(float(np.median(processor)), 2),
        "cpu_p95": round(float(np.quantile(processor, 0.95)), 2),
    }


def measure(root: Path) -> dict[str, dict[str, float]]:
    """Latencies of the read side, the file cache warm."""
    index = FeatureIndex(root)
    draw = np.random.default_rng(1)
    latents = draw.integers(0, index.d_sae, 300)
    often = index.latents(sort="n_active", descending=True, limit=50).column("latent").to_numpy()
    queries: dict[str, tuple[Callable[[int], object], np.ndarray]] = {
        "open the index": (lambda _: FeatureIndex(root), latents[:20]),
        "a latent's page": (lambda i: page(index, i), latents),
        "  of the 50 densest": (lambda i: page(index, i), often),
        "  statistics": (index.latent, latents),
        "  examples": (index.examples, latents),
        "  losses of 20 examples": (lambda i: index.losses(index.examples(i, 0)), latents),
        "  logits": (index.logits, latents),
        "  activations": (lambda i: index.activations(i, limit=1000), latents),
        "window of text": (lambda i: index.window(i * 37 % index.n_tokens, latent=i), latents),
        "search by token": (index.search_token, latents),
        "search by promoted token": (index.search_promoted, latents[:50]),
        "table of latents, sorted": (lambda n: index.latents(sort="density", limit=100, offset=n), latents[:50]),
    }
    return {name: timed(action, arguments) for name, (action, arguments) in queries.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", type=int, default=24_576)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--labels", type=int, default=0, help="labels that tokens carry (the microworld has 75)")
    parser.add_argument("--buffer", type=int, default=2_000_000, help="activations held in memory at once")
    parser.add_argument("--keep", type=Path, help="leave the index here")
    arguments = parser.parse_args()
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        root = arguments.keep or Path(folder) / "features"
        root.mkdir(parents=True)
        build(root, arguments.latents, arguments.tokens, arguments.k, arguments.labels, arguments.buffer, clock)
        report = {
            "settings": {key: value for key, value in vars(arguments).items() if key != "keep"},
            "activations": json.loads(schema.summary_path(root).read_text())["n_activations"],
            "build_cpu_s": {name: round(seconds, 1) for name, seconds in clock.seconds.items()},
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "size_mb": {t.name: round(t.path(root).stat().st_size / 1e6, 1) for t in schema.TABLES},
            "query_ms": measure(root),
        }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
