"""Directories of activations without a model, made-up vectors of made-up documents: to read in benchmarks and tests."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

import saelab
from saelab.activations.columns import Column
from saelab.activations.config import HarvestConfig, StorageType
from saelab.activations.manifest import CorpusPlace, Manifest, SiteEntry
from saelab.activations.shards import ShardBuffer
from saelab.corpora.policy import TokenPolicy
from saelab.corpora.rows import Cursor, TokenRows
from saelab.disk import ActivationPaths
from saelab.models import Site

SITE = Site.parse("blocks.0.resid_post")
CONTEXT = 256


def write_directory(
    out: Path,
    tokens: int,
    width: int,
    dtype: StorageType = "fp32",
    document_tokens: int = 400,
    shard_tokens: int = 131_072,
) -> Path:
    """A finished directory with one site. Every token is kept; x is normal, from one seed.

    Args:
        tokens: a multiple of 256, the context.
        document_tokens: documents are half to three halves as long, drawn evenly.
    """
    config = HarvestConfig(
        sites=(str(SITE),), policy=TokenPolicy(context=CONTEXT, exclude_first=0, exclude_special=False),
        tokens=tokens, shard_tokens=shard_tokens, batch=1, dtype=dtype,
    )  # fmt: skip
    documents = _documents(tokens, document_tokens)
    generator = torch.Generator().manual_seed(0)
    buffer, shards, paths = ShardBuffer(config, {Column(SITE): width}), [], ActivationPaths(out)
    for row in range(0, config.rows, config.shard_rows):
        rows = _rows(documents, row, min(row + config.shard_rows, config.rows))
        buffer.add(rows, {Column(SITE): torch.randn(rows.n_kept, width, generator=generator)})
        shards.append(buffer.write(paths, len(shards)))
        buffer.clear()
    Manifest(
        saelab_version=saelab.__version__, finished=True, model="none", model_revision=None, model_fingerprint="0" * 64,
        tokenizer_fingerprint="0" * 64, config=config, n_tokens=tokens, n_kept=tokens, shards=shards,
        sites={str(SITE): SiteEntry(width=width, scale=1.0, mean=[0.0] * width)},
        next=CorpusPlace(document=0, token=0, row=config.rows),
    ).save(out)  # fmt: skip
    return out


def _documents(tokens: int, mean: int) -> np.ndarray:
    """The document of each token."""
    drawn = np.random.default_rng(0).integers(mean // 2, mean + mean // 2 + 1, size=2 * math.ceil(tokens / mean) + 8)
    return np.repeat(np.arange(len(drawn)), drawn)[:tokens]


def _rows(documents: np.ndarray, first: int, stop: int) -> TokenRows:
    here = torch.from_numpy(documents[first * CONTEXT : stop * CONTEXT]).view(-1, CONTEXT)
    zeros = torch.zeros(here.shape, dtype=torch.int32)
    return TokenRows(zeros, here, zeros, zeros.to(torch.uint8), Cursor(row=first), Cursor(row=stop))
