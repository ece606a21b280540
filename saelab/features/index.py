"""FeatureIndex: the read side of the index, for the browser and for notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64
from numpy.typing import NDArray

from saelab.disk import read_json
from saelab.errors import UserError
from saelab.features import schema
from saelab.features.lookup import SortedTable, damage_reported
from saelab.features.records import (
    Activations,
    CoActive,
    Example,
    LabelledLatent,
    LabelScore,
    LatentStatistics,
    LatentWeight,
    Logits,
    Meaning,
    Neighbour,
    TokenMass,
    TokenWeight,
    Window,
)

_DUCKDB = {
    "threads": 2,
    "memory_limit": "512MB",
    "temp_directory": "",  # queries are small: nothing may be spilled to disk behind the user's back
    "autoinstall_known_extensions": False,  # and nothing fetched
    "autoload_known_extensions": False,
}


class FeatureIndex:
    """An index made by `build_index`. Safe to share between threads; holds no table but the small one of all latents.

    Raises:
        UserError: no index there, one of another schema version, or a file that is missing or damaged.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise UserError(f"{self.path} holds no feature index; `saelab index` makes one")
        self.summary = _read_summary(self.path)
        self._tables = {table.name: SortedTable(table, self.path) for table in schema.TABLES}
        if self._tables["latents"].rows != self.d_sae:
            raise UserError(
                f"{self.path} describes {self._tables['latents'].rows} of {self.d_sae} latents; build the index again"
            )
        self._duckdb = duckdb.connect(config=_DUCKDB)

    @property
    def d_sae(self) -> int:
        return self.summary["d_sae"]

    @property
    def n_tokens(self) -> int:
        """Kept tokens, on which latents could be active."""
        return self.summary["n_tokens"]

    # One latent

    def latent(self, latent: int) -> LatentStatistics:
        """Statistics of one latent."""
        row = self._at("latents", latent).to_pylist()[0]
        return LatentStatistics(**{**row, "histogram": np.array(row["histogram"], np.int64)})

    def examples(self, latent: int, quantile: int | None = None) -> list[Example]:
        """Examples of one latent: the largest first, then quarter by quarter; or those of one `quantile` (0 … 4)."""
        rows, effects = self._at("examples", latent), self._effects(latent)
        plain = rows.select(["quantile", "rank", "token", "document", "value", "focus"]).to_pylist()
        ids, values = rows.column("tokens"), rows.column("values")
        return [
            Example(
                tokens=ids[n].values.to_numpy(),
                values=values[n].values.to_numpy(),
                effect=effects.get(row["token"]) if row["quantile"] == 0 else None,
                **row,
            )
            for n, row in enumerate(plain)
            if quantile is None or row["quantile"] == quantile
        ]

    def _effects(self, latent: int) -> dict[int, float]:
        rows = self._at("effects", latent)
        return dict(zip(rows.column("token").to_pylist(), rows.column("effect").to_pylist(), strict=True))

    def meaning(self, latent: int) -> Meaning | None:
        """What a latent of a supervised dictionary stands for; None in all others."""
        group = int(np.searchsorted(self._group_ends, latent, side="right"))
        if group == len(self._group_ends):
            return None
        named = self.summary["groups"][group]
        # counted from the group's end
        return Meaning(named["name"], named["values"][latent - self._group_ends[group]])

    @cached_property
    def _group_ends(self) -> Int64[np.ndarray, "groups"]:
        return np.cumsum([len(group["values"]) for group in self.summary["groups"]], dtype=np.int64)

    def losses(self, examples: Sequence[Example]) -> list[Float32[np.ndarray, "window"]]:
        """The loss on every token of each example's window, as in `Window.loss`; faster than a `window` each."""
        starts = [example.token - example.focus for example in examples]
        ranges = [(start, start + len(example.tokens)) for start, example in zip(starts, examples, strict=True)]
        return self._tables["tokens"].stretches(ranges, "loss") if ranges else []

    def logits(self, latent: int) -> Logits:
        """Promoted and suppressed tokens, strongest first; empty lists where `summary["has_logits"]` is false."""
        rows = self._at("logits", latent).to_pylist()
        promoted, suppressed = (
            [TokenWeight(row["id"], row["weight"]) for row in rows if row["sign"] == sign] for sign in (1, -1)
        )
        return Logits(promoted, suppressed)

    def neighbours(self, latent: int) -> list[Neighbour]:
        """Latents with the most similar decoder rows, nearest first."""
        return [Neighbour(row["neighbour"], row["cosine"]) for row in self._at("neighbours", latent).to_pylist()]

    def coactive(self, latent: int) -> list[CoActive]:
        """Latents that are most often active on the same tokens, closest first."""
        rows = self._at("coactivation", latent).to_pylist()
        return [CoActive(row["neighbour"], row["n_both"], row["share"], row["cosine"]) for row in rows]

    def labels(self, latent: int) -> list[LabelScore]:
        """Ground-truth labels that the latent detects best; [] where the corpus has none."""
        rows = self._at("labels", latent).select(LabelScore._fields).to_pylist()
        return [LabelScore(**row) for row in rows]

    def activations(self, latent: int, limit: int | None = None) -> Activations:
        """All tokens on which the latent is active, in text order; or the `limit` largest, from the largest down."""
        rows = self._at("activations", latent)
        token, value = rows.column("token").to_numpy(), rows.column("value").to_numpy()
        if limit is not None:
            largest = _largest(value, limit)
            token, value = token[largest], value[largest]
        return Activations(token, value)

    # All latents

    def latents(
        self,
        sort: str = "latent",
        descending: bool = False,
        limit: int | None = None,
        offset: int = 0,
        between: Mapping[str, tuple[float, float]] | None = None,
    ) -> pa.Table:
        """One row per latent: the statistics, and the first top token, promoted token and label (null where none).

        Columns: latent, n_active, density, mean_activation, max_activation, top_token, top_token_share,
        promoted (token id), label, f1.

        Args:
            sort: column to sort by; nulls come last.
            between: column → (lowest, highest) that a row must lie in.
        """
        columns = self._overview.column_names
        for name in (sort, *(between or {})):
            if name not in columns:
                raise UserError(f"column {name!r} is not in the table of latents; it has {', '.join(columns)}")
        # Column names come from the list just checked; values are parameters.
        where = " AND ".join(f"{name} BETWEEN ? AND ?" for name in between or {}) or "true"
        parameters: list[Any] = [bound for bounds in (between or {}).values() for bound in bounds]
        direction = "DESC" if descending else "ASC"
        query = f"SELECT * FROM latents WHERE {where} ORDER BY {sort} {direction} NULLS LAST, latent LIMIT ? OFFSET ?"
        with self._duckdb.cursor() as cursor:
            cursor.register("latents", self._overview)
            return cursor.sql(query, params=[*parameters, limit, offset]).to_arrow_table()

    @cached_property
    def _overview(self) -> pa.Table:
        columns = ["latent", "n_active", "density", "mean_activation", "max_activation"]
        plain = self._tables["latents"].read(columns)
        with self._duckdb.cursor() as cursor, damage_reported(self.path):
            cursor.register("plain", plain)
            return cursor.sql(
                """
                SELECT plain.*, top_tokens[1] AS top_token, top_token_share[1] AS top_token_share,
                       logits.id AS promoted, labels.label, labels.f1
                FROM plain
                JOIN read_parquet($latents) AS lists USING (latent)
                LEFT JOIN (FROM read_parquet($logits) WHERE sign = 1 AND rank = 0) AS logits USING (latent)
                LEFT JOIN (FROM read_parquet($labels) WHERE rank = 0) AS labels USING (latent)
                ORDER BY latent
                """,
                params={name: str(self._tables[name].path) for name in ("latents", "logits", "labels")},
            ).to_arrow_table()

    def search_token(self, id: int, limit: int = 50) -> list[TokenMass]:
        """Latents with the most summed activation on a token id, the largest first (at most 100 are kept)."""
        rows = self._tables["token_latents"].at(id).select(TokenMass._fields).slice(0, limit).to_pylist()
        return [TokenMass(**row) for row in rows]

    def search_promoted(self, id: int, limit: int = 50, sign: int = 1) -> list[LatentWeight]:
        """Latents that promote (`sign` 1) or suppress (-1) a token id most, among those with it in their `logits`."""
        rows = self._query(
            "SELECT latent, weight FROM read_parquet($path) WHERE id = $id AND sign = $sign "
            "ORDER BY abs(weight) DESC, latent LIMIT $n",
            "logits",
            {"id": id, "sign": sign, "n": limit},
        )
        return [LatentWeight(*row) for row in rows]

    def search_label(self, label: str, limit: int = 50) -> list[LabelledLatent]:
        """Latents that detect a ground-truth label best, among those that have it as one of their best labels."""
        rows = self._query(
            "SELECT latent, f1 FROM read_parquet($path) WHERE label = $label ORDER BY f1 DESC, latent LIMIT $n",
            "labels",
            {"label": label, "n": limit},
        )
        return [LabelledLatent(*row) for row in rows]

    # Text

    def window(self, token: int, before: int = 60, after: int = 40, latent: int | None = None) -> Window:
        """The text around a token, clipped to its row, with one latent's activation on it if `latent` is given.

        Raises:
            UserError: no such token, or padding.
        """
        context, end = self.summary["context"], self.summary["n_positions"]
        if not 0 <= token < end:
            raise UserError(f"token {token} is not in the indexed text, which has tokens 0 to {end - 1}")
        row = token - token % context
        low, high = max(token - max(before, 0), row), min(token + max(after, 0) + 1, row + context)
        rows = self._tables["tokens"].between(low, high)
        real = rows.column("real").to_numpy()
        if not real[token - low]:
            raise UserError(f"token {token} is padding, which fills up a row and is no text")
        high = low + int(real.sum())  # padding lies at a row's right
        rows = rows.slice(0, high - low)
        values = None
        if latent is not None:
            active = self.activations(latent)
            begin, stop = np.searchsorted(active.token, [low, high])
            values = np.zeros(high - low, np.float32)
            values[active.token[begin:stop] - low] = active.value[begin:stop]
        return Window(
            first=low,
            tokens=rows.column("id").to_numpy(),
            documents=rows.column("document").to_numpy(),
            kept=rows.column("kept").to_numpy(),
            loss=rows.column("loss").to_numpy(),
            values=values,
            focus=token - low,
        )

    @cached_property
    def vocabulary(self) -> list[str]:
        """Text of each token id, leading space included; "�" for a part of a character."""
        return self._tables["vocabulary"].read().column("text").to_pylist()

    def find_tokens(self, text: str, limit: int = 20) -> list[int]:
        """Ids of tokens that read `text`: exactly so first, then but for case and outer spaces, then longer ones."""
        wanted = text.strip().lower()
        if not wanted:
            return []

        def distance(id: int) -> tuple[int, int, int]:
            token = self.vocabulary[id]
            return (0 if token == text else 1 if token.strip().lower() == wanted else 2, len(token), id)

        found = [id for id, token in enumerate(self.vocabulary) if wanted in token.lower()]
        return sorted(found, key=distance)[:limit]

    def _at(self, table: str, latent: int) -> pa.Table:
        if not 0 <= latent < self.d_sae:
            raise UserError(f"latent {latent} is not in this dictionary, which has latents 0 to {self.d_sae - 1}")
        return self._tables[table].at(latent)

    def _query(self, query: str, table: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Rows of a query over one table; DuckDB connections are not shared between threads, their cursors may be."""
        path = self._tables[table].path
        with self._duckdb.cursor() as cursor, damage_reported(path):
            return cursor.execute(query, {"path": str(path), **parameters}).fetchall()


def _largest(values: NDArray, count: int) -> NDArray:
    """Indices of the `count` largest values, from the largest down; of equal values the first comes first."""
    if count <= 0:
        return np.empty(0, np.int64)
    lowest = np.partition(values, -count)[-count] if count < len(values) else -np.inf
    candidates = np.flatnonzero(values >= lowest)
    return candidates[np.argsort(-values[candidates], kind="stable")][:count]


def _read_summary(path: Path) -> dict[str, Any]:
    where = schema.summary_path(path)
    summary = read_json(where)
    version = summary.get("schema_version") if isinstance(summary, dict) else None
    if not isinstance(version, int):
        raise UserError(f"{where} is damaged: it states no schema version; build the index again")
    if version > schema.SCHEMA_VERSION:
        raise UserError(f"{where} has schema version {version}; update saelab to read it")
    if version < schema.SCHEMA_VERSION:
        raise UserError(
            f"{path} was made by an earlier saelab (schema version {version}, this one reads {schema.SCHEMA_VERSION}); "
            "make it again with `saelab index RUN --overwrite`"
        )
    missing = {"d_sae", "n_tokens", "n_positions", "context", "groups"} - summary.keys()
    if missing:
        raise UserError(f"{where} is damaged: it lacks {', '.join(sorted(missing))}; build the index again")
    return summary
