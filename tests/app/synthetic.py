"""Run directories made of thin air, in the schema of the real ones: small ones in tests, 131,072 latents for timing.

Every token id v has its own few latents, so pages show what real ones show: latents that fire on one kind of token.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors.numpy import save_file

from saelab.disk import RunPaths
from saelab.disk.layout import DictionaryPaths
from saelab.features import schema

HOSTILE = (
    "<script>document.title='owned'</script>",
    " **bold** `code`",
    "\n",
    " ",
    "\t",
    "",
    "\u202eright-to-left",
    '" onmouseover="x',
)
WORDS = (
    " the",
    " a",
    " and",
    " said",
    " was",
    " little",
    " girl",
    " boy",
    " found",
    " red",
    " ball",
    ".",
    ",",
    " happy",
    " dog",
    " ran",
    " to",
    " it",
    " she",
    " he",
    " park",
    " mother",
    " smiled",
    " tree",
    " big",
    " play",
    " with",
    " in",
    " on",
    " day",
)
GROUP = 8  # examples per quantile group


@dataclass(frozen=True)
class Shape:
    """How much of everything."""

    d_sae: int = 96
    n_rows: int = 60
    context: int = 32
    k: int = 4
    d_vocab: int = 64
    seed: int = 0


def write_run(root: Path, shape: Shape = Shape(), *, evaluated: bool = True, indexed: bool = True) -> RunPaths:
    """A run directory at `root`: settings, metrics and dictionary always, reports and feature index if wanted."""
    paths = RunPaths(root)
    paths.dictionary.mkdir(parents=True)
    paths.config.write_text("name: synthetic\n")
    (paths.dictionary / "config.json").write_text(json.dumps(dictionary_config(shape)))
    write_weights(paths, shape)
    write_metrics(paths, steps=50)
    index = write_index(paths, shape) if indexed else np.zeros(shape.d_sae, dtype=np.int64)
    if evaluated:
        paths.evaluation.mkdir()
        paths.report("fidelity").write_text(json.dumps(fidelity_report(root.name, shape)))
        paths.report("sparsity").write_text(json.dumps(sparsity_report(root.name, shape, index)))
    return paths


def dictionary_config(shape: Shape) -> dict[str, object]:
    return {
        "schema_version": 1,
        "kind": "sae",
        "architecture": "topk",
        "d_in": 16,
        "d_sae": shape.d_sae,
        "k": shape.k,
        "affinity": {"kind": "activation"},
        "allocation": {"kind": "token"},
        "rule": "topk",
        "scale": 0.5,
        "site": "blocks.2.resid_post",
        "model": "demo",
        "model_fingerprint": "0" * 64,
        "tokenizer_fingerprint": "0" * 64,
        "policy": {"context": shape.context},
        "tokens_trained": 1_200_000,
        "saelab_version": "0.1.0",
        "weights_sha256": "0" * 64,
    }


def write_weights(paths: RunPaths, shape: Shape) -> None:
    """Decoder directions alone, which is what pages read without torch; two tight bundles and the rest anywhere."""
    random = np.random.default_rng(shape.seed)
    rows = random.standard_normal((shape.d_sae, 16)).astype(np.float32)
    rows[::3] = 4 * np.eye(16, dtype=np.float32)[0] + 0.3 * rows[::3]
    save_file({"W_dec": rows}, DictionaryPaths(paths.dictionary).weights)


def write_metrics(paths: RunPaths, steps: int) -> None:
    with open(paths.metrics, "w") as file:
        for step in range(1, steps + 1):
            fvu = 0.1 + 0.9 * math.exp(-step / 10)
            record = {
                "step": step,
                "tokens": step * 4096,
                "loss": fvu * 16,
                "fvu": fvu,
                "l0": 4.0,
                "dead": 5,
                "lr": 3e-4,
                "tokens_per_s": 9000.0,
            }
            file.write(json.dumps(record) + "\n")


def vocabulary(shape: Shape) -> list[str]:
    """Display strings by id: hostile ones first, words, then numbered fillers."""
    known = [*HOSTILE, *WORDS]
    return (known + [f" w{number}" for number in range(shape.d_vocab)])[: shape.d_vocab]


def write_index(paths: RunPaths, shape: Shape) -> NDArray[np.int64]:
    """Write every table of the feature index; returns active tokens per latent."""
    root, random = paths.features, np.random.default_rng(shape.seed)
    root.mkdir()
    n_tokens = shape.n_rows * shape.context
    weight = 1 / np.arange(1, shape.d_vocab + 1) ** 0.6
    ids = random.choice(shape.d_vocab, n_tokens, p=weight / weight.sum()).astype(np.int32)
    position = np.tile(np.arange(shape.context, dtype=np.int16), shape.n_rows)
    row = np.repeat(np.arange(shape.n_rows, dtype=np.int32), shape.context)
    loss = random.gamma(2.0, 1.2, n_tokens).astype(np.float32)
    last = position == shape.context - 1
    _write(
        root,
        schema.TOKENS,
        {
            "token": np.arange(n_tokens),
            "id": ids,
            "document": row // 2,
            "position": position,
            "row": row,
            "real": np.ones(n_tokens, dtype=bool),
            "kept": position > 0,
            "loss": pa.array(loss, mask=last),
        },
    )

    latent, token, value = _activations(shape, ids, position, random)
    _write(root, schema.ACTIVATIONS, {"latent": latent, "token": token, "value": value})
    counts = np.bincount(latent, minlength=shape.d_sae)
    maxima = np.zeros(shape.d_sae, dtype=np.float32)
    np.maximum.at(maxima, latent, value)
    _write_latents(root, shape, latent, ids[token], value, counts, maxima, int((position > 0).sum()))
    _write_examples(root, shape, ids, latent, token, value, maxima)
    _write_relations(root, shape, random, counts)
    kept = int((position > 0).sum())
    summary = {
        "schema_version": schema.SCHEMA_VERSION,
        "dictionary": str(paths.dictionary),
        "model": "demo",
        "corpus": {"source": "synthetic"},
        "policy": {"context": shape.context},
        "n_tokens": kept,
        "n_positions": n_tokens,
        "has_logits": True,
        "coactivation_tokens": kept,
        "d_sae": shape.d_sae,
        "context": shape.context,
        "groups": [],
    }
    schema.summary_path(root).write_text(json.dumps(summary))
    return counts


def _activations(
    shape: Shape, ids: NDArray[np.int32], position: NDArray[np.int16], random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """k latents a token, drawn from those that belong to its id (nine tenths of all latents: the rest are dead)."""
    live = max(shape.d_sae * 9 // 10, 1)
    token = np.repeat(np.flatnonzero(position > 0), shape.k)
    own = max(live // shape.d_vocab, shape.k)
    latent = (ids[token].astype(np.int64) * own + random.integers(0, own, len(token))) % live
    pairs = np.unique(latent * len(ids) + token)
    latent, token = pairs // len(ids), pairs % len(ids)
    return latent, token, random.gamma(3.0, 1.0, len(token)).astype(np.float32)


def _write_latents(
    root: Path,
    shape: Shape,
    latent: NDArray[np.int64],
    ids: NDArray[np.int32],
    value: NDArray[np.float32],
    counts: NDArray[np.int64],
    maxima: NDArray[np.float32],
    kept: int,
) -> None:
    bins = schema.HISTOGRAM_BINS
    slot = np.minimum((value / maxima[latent] * bins).astype(np.int64), bins - 1)
    histogram = np.bincount(latent * bins + slot, minlength=shape.d_sae * bins).reshape(shape.d_sae, bins)
    mass = np.bincount(latent, value, minlength=shape.d_sae)
    first = np.full(shape.d_sae, -1, dtype=np.int64)
    first[latent[::-1]] = ids[::-1]
    on_first = np.bincount(latent, np.where(first[latent] == ids, value, 0), minlength=shape.d_sae)
    dead = counts == 0
    share = np.divide(on_first, mass, out=np.zeros(shape.d_sae), where=mass > 0)
    _write(
        root,
        schema.LATENTS,
        {
            "latent": np.arange(shape.d_sae),
            "n_active": counts,
            "density": counts / kept,
            "mean_activation": pa.array((mass / np.maximum(counts, 1)).astype(np.float32), mask=dead),
            "max_activation": pa.array(maxima, mask=dead),
            "histogram": pa.FixedSizeListArray.from_arrays(pa.array(histogram.ravel(), pa.int32()), bins),
            "top_tokens": [[] if dead[i] else [int(first[i])] for i in range(shape.d_sae)],
            "top_token_share": [[] if dead[i] else [float(share[i])] for i in range(shape.d_sae)],
        },
    )


def _write_examples(
    root: Path,
    shape: Shape,
    ids: NDArray[np.int32],
    latent: NDArray[np.int64],
    token: NDArray[np.int64],
    value: NDArray[np.float32],
    maxima: NDArray[np.float32],
) -> None:
    """The strongest `GROUP` of every latent as group 0, and up to `GROUP` of each quarter of (0, max]."""
    quarter = np.minimum((value / maxima[latent] * schema.QUARTERS).astype(np.int64), schema.QUARTERS - 1) + 1
    columns: dict[str, list[NDArray]] = {name: [] for name in ("latent", "quantile", "rank", "token", "value")}
    for group in (np.zeros_like(quarter), quarter):
        order = np.lexsort((-value, group, latent))
        key = latent[order] * 10 + group[order]
        start = np.maximum.accumulate(np.where(np.r_[True, key[1:] != key[:-1]], np.arange(len(key)), 0))
        rank = np.arange(len(key)) - start
        chosen = order[rank < GROUP]
        for name, column in (("latent", latent), ("quantile", group), ("token", token), ("value", value)):
            columns[name].append(column[chosen])
        columns["rank"].append(rank[rank < GROUP])
    table = {name: np.concatenate(parts) for name, parts in columns.items()}
    order = np.lexsort((table["rank"], table["quantile"], table["latent"]))
    table = {name: column[order] for name, column in table.items()}

    strongest = table["quantile"] == 0
    _write(
        root,
        schema.EFFECTS,
        {
            "latent": table["latent"][strongest],
            "token": table["token"][strongest],
            "effect": 0.1 * table["value"][strongest],
        },
    )
    position = table["token"] % shape.context
    left = np.minimum(position, schema.WINDOW_BEFORE)
    right = np.minimum(shape.context - 1 - position, schema.WINDOW_AFTER)
    lengths = left + right + 1
    offsets = np.r_[0, lengths.cumsum()]
    owner = np.repeat(np.arange(len(lengths)), lengths)
    window = np.arange(offsets[-1]) - offsets[owner] + (table["token"] - left)[owner]
    known = latent * len(ids) + token  # sorted: activations come by latent, then token
    wanted = table["latent"][owner] * len(ids) + window
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    values = np.where(known[at] == wanted, value[at], 0).astype(np.float32)
    _write(
        root,
        schema.EXAMPLES,
        {
            **table,
            "document": (table["token"] // shape.context // 2),
            "focus": left,
            "tokens": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(ids[window], pa.int32())),
            "values": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values, pa.float32())),
        },
    )


def _write_relations(root: Path, shape: Shape, random: np.random.Generator, counts: NDArray[np.int64]) -> None:
    """Logit weights, neighbours, co-activation, labels (every fourth latent), tokens' latents, vocabulary."""
    n, each = shape.d_sae, min(10, shape.d_vocab)
    latent, rank = np.repeat(np.arange(n), 2 * each), np.tile(np.arange(each), 2 * n)
    sign = np.tile(np.repeat([1, -1], each), n)
    _write(
        root,
        schema.LOGITS,
        {
            "latent": latent,
            "sign": sign,
            "rank": rank,
            "id": (latent * 7 + rank * 3 + sign) % shape.d_vocab,
            "weight": sign * (2.0 - 0.15 * rank),
        },
    )
    near = min(5, n - 1)
    latent, rank = np.repeat(np.arange(n), near), np.tile(np.arange(near), n)
    cosine = 0.9 - 0.1 * rank
    _write(
        root,
        schema.NEIGHBOURS,
        {"latent": latent, "rank": rank, "neighbour": (latent + rank + 1) % n, "cosine": cosine},
    )
    _write(
        root,
        schema.COACTIVATION,
        {
            "latent": latent,
            "rank": rank,
            "neighbour": (latent + 2 * rank + 1) % n,
            "n_both": 40 - rank,
            "share": 0.5 - 0.05 * rank,
            "cosine": cosine - 0.2,
        },
    )
    labelled = np.arange(0, n, 4)
    _write(
        root,
        schema.LABELS,
        {
            "latent": labelled,
            "rank": np.zeros_like(labelled),
            "label": [("name", "quote", "place")[i % 3] for i in range(len(labelled))],
            "f1": 0.2 + 0.75 * (labelled % 16 == 0),
            "precision": np.full(len(labelled), 0.9),
            "recall": np.full(len(labelled), 0.8),
            "threshold": np.zeros(len(labelled)),
        },
    )
    live = np.flatnonzero(counts)[: shape.d_vocab]
    _write(
        root,
        schema.TOKEN_LATENTS,
        {
            "id": np.arange(len(live)),
            "rank": np.zeros_like(live),
            "latent": live,
            "mass": random.random(len(live)),
            "share": random.random(len(live)),
        },
    )
    words = vocabulary(shape)
    _write(root, schema.VOCABULARY, {"id": np.arange(len(words)), "text": words})


def _write(root: Path, table: schema.Table, columns: dict[str, object]) -> None:
    arrays = [pa.array(columns[field.name]).cast(field.type) for field in table.columns]
    pq.write_table(
        pa.Table.from_arrays(arrays, schema=table.columns), table.path(root), row_group_size=table.rows_per_group
    )


def _about(name: str, shape: Shape) -> dict[str, object]:
    return {
        "dictionary": name,
        "dictionary_sha256": None,
        "architecture": "topk",
        "d_in": 16,
        "d_sae": shape.d_sae,
        "site": "blocks.2.resid_post",
        "selection_rule": "topk",
        "model": "demo",
        "model_revision": None,
        "model_fingerprint": "0" * 64,
        "dtype": "float32",
        "device": "cpu",
        "corpus": {"source": "synthetic", "split": "test"},
        "token_policy": None,
        "documents": 30,
        "positions": 1920,
        "excluded": 60,
        "tokens": 1860,
        "predictions": 1800,
        "mean_tokens": 1024,
        "seed": 0,
        "seconds": 1.0,
        "created": "2026-01-01T00:00:00+00:00",
        "saelab_version": "0.1.0",
        "settings": {},
    }


def fidelity_report(name: str, shape: Shape) -> dict[str, object]:
    metrics = {
        "ce_clean": 2.5,
        "ce_sae": 2.62,
        "ce_zero": 8.3,
        "ce_mean": 6.1,
        "delta_ce": 0.12,
        "loss_recovered_zero": 0.979,
        "loss_recovered_mean": 0.967,
        "kl": 0.13,
        "splice_error": 1e-6,
        "fvu": 0.104,
        "explained_variance": 0.896,
        "bias": 0.99,
        "cosine": 0.95,
        "l0": 4.0,
        "density": 4.0 / shape.d_sae,
        "dead": shape.d_sae // 10,
        "dead_fraction": 0.1,
    }
    intervals = {
        "level": 0.95,
        "resamples": 1000,
        "of": {"fvu": {"low": 0.101, "high": 0.107}, "delta_ce": {"low": 0.11, "high": 0.13}},
    }
    return {
        "schema_version": 1,
        "suite": "fidelity",
        "about": _about(name, shape),
        "metrics": metrics,
        "intervals": intervals,
    }


def sparsity_report(name: str, shape: Shape, counts: NDArray[np.int64]) -> dict[str, object]:
    edges = [-5 + 0.25 * i for i in range(21)]
    live = counts[counts > 0] / (shape.n_rows * (shape.context - 1))
    histogram = np.histogram(np.log10(live), edges)[0] if len(live) else np.zeros(20, dtype=int)
    law = {
        "s": 1.1,
        "q": 4.0,
        "intercept": -1.5,
        "s_error": 0.05,
        "q_error": 0.4,
        "intercept_error": 0.1,
        "r_squared": 0.98,
        "n_latents": int((counts > 0).sum()),
    }
    metrics = {
        "l0": 4.0,
        "l0_p5": 3,
        "l0_p50": 4,
        "l0_p95": 4,
        "l0_histogram": [0, 5, 40, 300, 1515],
        "density_edges": edges,
        "density_histogram": histogram.tolist(),
        "dead": shape.d_sae // 10,
        "dead_fraction": 0.1,
        "underused": 3,
        "underused_fraction": 0.03,
        "redundant_fraction": 0.01,
        "nearest_cosine": 0.4,
        "closest_pairs": [],
        "zipf": law,
    }
    return {"schema_version": 1, "suite": "sparsity", "about": _about(name, shape), "metrics": metrics}
