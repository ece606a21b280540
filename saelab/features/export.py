"""All that an index knows of one latent, as JSON: for papers, other tools, and colleagues without the run."""

from __future__ import annotations

import math
from typing import Any

from saelab.features.index import FeatureIndex
from saelab.features.notes import Note

SCHEMA_VERSION = 1


def as_json(index: FeatureIndex, latent: int, note: Note | None = None) -> dict[str, Any]:
    """The latent's page. Tokens are texts, losses and effects in nats, activations in the dictionary's own units.

    Args:
        note: name and note to go with it.
    """
    statistics, logits, meaning = index.latent(latent), index.logits(latent), index.meaning(latent)
    text = index.vocabulary.__getitem__
    keys = ("dictionary", "model", "corpus", "n_tokens", "context")
    return {
        "schema_version": SCHEMA_VERSION,
        "latent": latent,
        "name": note.name if note else "",
        "note": note.note if note else "",
        "meaning": None if meaning is None else meaning._asdict(),
        "about": {key: index.summary[key] for key in keys if key in index.summary},
        "n_active": statistics.n_active,
        "density": statistics.density,
        "mean_activation": statistics.mean_activation,
        "max_activation": statistics.max_activation,
        "histogram": {"edges": statistics.bin_edges.tolist(), "counts": statistics.histogram.tolist()},
        "tokens": [
            {"token": text(id), "share": share}
            for id, share in zip(statistics.top_tokens, statistics.top_token_share, strict=True)
        ],
        "promoted": [{"token": text(item.id), "weight": item.weight} for item in logits.promoted],
        "suppressed": [{"token": text(item.id), "weight": item.weight} for item in logits.suppressed],
        "neighbours": [item._asdict() for item in index.neighbours(latent)],
        "coactive": [item._asdict() for item in index.coactive(latent)],
        "labels": [item._asdict() for item in index.labels(latent)],
        "examples": _examples(index, latent),
    }


def _examples(index: FeatureIndex, latent: int) -> list[dict[str, Any]]:
    found = index.examples(latent)
    return [
        {
            "quantile": example.quantile,
            "rank": example.rank,
            "document": example.document,
            "position": example.token % index.summary["context"],
            "value": example.value,
            "effect": example.effect,
            "focus": example.focus,
            "tokens": [index.vocabulary[id] for id in example.tokens],
            "activations": example.values.tolist(),
            "losses": [None if math.isnan(loss) else loss for loss in losses.tolist()],
        }
        for example, losses in zip(found, index.losses(found), strict=True)
    ]
