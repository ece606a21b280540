"""What a feature index holds: its tables, their columns, and the file that each one lies in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

SCHEMA_VERSION = 2

HISTOGRAM_BINS = 40  # equal bins over (0, max]
QUARTERS = 4  # example groups 1..4: equal parts of (0, max], 4 the highest; group 0 holds the largest activations
WINDOW_BEFORE, WINDOW_AFTER = 24, 10  # tokens around an example's peak


@dataclass(frozen=True)
class Table:
    """One Parquet file of the index. Small row groups make a latent's rows cheap to find."""

    name: str
    columns: pa.Schema
    rows_per_group: int

    def path(self, root: Path) -> Path:
        return root / f"{self.name}.parquet"


def _table(name: str, rows_per_group: int, columns: dict[str, pa.DataType]) -> Table:
    return Table(name, pa.schema(list(columns.items())), rows_per_group)


_LATENT = pa.int32()

TOKENS = _table(
    "tokens",
    16_384,
    {
        "token": pa.int64(),  # row * context + position
        "id": pa.int32(),
        "document": pa.int32(),
        "position": pa.int16(),
        "row": pa.int32(),
        "real": pa.bool_(),  # False: padding, which fills up a row and is no text
        "kept": pa.bool_(),  # False: excluded by the token policy, so no latent is active here
        "loss": pa.float32(),  # nats; cross-entropy of predicting the next token from here; null at a row's end
    },
)
ACTIVATIONS = _table("activations", 16_384, {"latent": _LATENT, "token": pa.int64(), "value": pa.float32()})
LATENTS = _table(
    "latents",
    256,
    {
        "latent": _LATENT,
        "n_active": pa.int64(),
        "density": pa.float64(),  # n_active / kept tokens
        "mean_activation": pa.float32(),  # over active tokens; null for a latent that was never active
        "max_activation": pa.float32(),
        "histogram": pa.list_(pa.int32()),  # HISTOGRAM_BINS counts
        "top_tokens": pa.list_(pa.int32()),  # ids with the largest share of the summed activation
        "top_token_share": pa.list_(pa.float32()),
    },
)
EXAMPLES = _table(
    "examples",
    1_024,
    {
        "latent": _LATENT,
        "quantile": pa.int8(),
        "rank": pa.int16(),
        "token": pa.int64(),
        "document": pa.int32(),
        "value": pa.float32(),
        "tokens": pa.list_(pa.int32()),
        "values": pa.list_(pa.float32()),
        "focus": pa.int16(),  # index of the peak in the window
    },
)
EFFECTS = _table(
    "effects",
    8_192,
    {
        "latent": _LATENT,
        "token": pa.int64(),  # one of the latent's largest activations
        "effect": pa.float32(),  # nats: next-token loss without the latent's contribution here, minus the clean loss
    },
)
LOGITS = _table(
    "logits",
    8_192,
    {"latent": _LATENT, "sign": pa.int8(), "rank": pa.int16(), "id": pa.int32(), "weight": pa.float32()},
)
NEIGHBOURS = _table(
    "neighbours", 8_192, {"latent": _LATENT, "rank": pa.int16(), "neighbour": _LATENT, "cosine": pa.float32()}
)
COACTIVATION = _table(
    "coactivation",
    8_192,
    {
        "latent": _LATENT,
        "rank": pa.int16(),
        "neighbour": _LATENT,
        "n_both": pa.int64(),  # tokens of the counted sample on which both are active
        "share": pa.float32(),  # of the latent's own active tokens
        "cosine": pa.float32(),  # of the two on/off vectors: n_both / sqrt(n_latent * n_neighbour)
    },
)
LABELS = _table(
    "labels",
    8_192,
    {
        "latent": _LATENT,
        "rank": pa.int16(),
        "label": pa.string(),
        "f1": pa.float32(),
        "precision": pa.float32(),
        "recall": pa.float32(),
        "threshold": pa.float32(),  # "on" is an activation above this: 0, ¼, ½ or ¾ of the maximum
    },
)
TOKEN_LATENTS = _table(
    "token_latents",
    8_192,
    {
        "id": pa.int32(),
        "rank": pa.int16(),
        "latent": _LATENT,
        "mass": pa.float32(),  # the latent's summed activation on this token id
        "share": pa.float32(),  # of the latent's whole summed activation
    },
)
VOCABULARY = _table("vocabulary", 65_536, {"id": pa.int32(), "text": pa.string()})

TABLES = (
    TOKENS, ACTIVATIONS, LATENTS, EXAMPLES, EFFECTS, LOGITS, NEIGHBOURS, COACTIVATION, LABELS, TOKEN_LATENTS,
    VOCABULARY,
)  # fmt: skip


def summary_path(root: Path) -> Path:
    return root / "index.json"
