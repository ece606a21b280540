"""Which latents the table shows: by a word, by how they work, and by the range of every statistic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from app.table import Order
from saelab.evaluation.report import ZipfLaw
from saelab.features.index import FeatureIndex

WORKING: Final = {"all": "All", "live": "Live", "dead": "Dead", "underused": "Underused"}
UNDERUSED_SHARE: Final = 0.5  # of the density that the law expects, as in the evaluation
STATISTICS: Final = {
    "n_active": "Active tokens",
    "max_activation": "Largest activation",
    "mean_activation": "Mean activation",
    "top_token_share": "Share of its first token",
    "f1": "F1 of its best label",
}
Bounds = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Filter:
    """What a latent must be to be shown.

    Attributes:
        word: lies in its first token, the token that it promotes most, its best label or its name; "" for all.
        working: one of `WORKING`.
        bounds: column → (lowest, highest).
    """

    word: str
    working: str
    bounds: Bounds

    def select(
        self, index: FeatureIndex, order: Order, law: ZipfLaw | None, names: Mapping[int, str] | None = None
    ) -> pa.Table:
        """The latents, in the order asked for; `names` are those that somebody gave them."""
        bounds = dict(self.bounds)
        if self.working in ("live", "dead"):
            low, high = bounds.get("n_active", (0.0, np.inf))
            bounds["n_active"] = (max(low, 1.0), high) if self.working == "live" else (low, 0.0)
        found = index.latents(sort=order.column, descending=order.descending, between=bounds or None)
        if self.working == "underused" and law is not None:
            density = index.latents()["density"].to_numpy()
            found = found.filter(pa.array(underused(density, law)[found["latent"].to_numpy()]))
        word = self.word.strip().lower()
        return found.filter(pa.array(_reads(found, word, index.vocabulary, names or {}))) if word else found


def underused(density: Float[np.ndarray, "d_sae"], law: ZipfLaw) -> Bool[np.ndarray, "d_sae"]:
    """Live latents with less than half of the density that `law` expects of their rank."""
    if law.s is None or law.q is None or law.intercept is None:
        return np.zeros(len(density), bool)
    rank = np.empty(len(density))
    rank[np.argsort(-density, kind="stable")] = np.arange(1, len(density) + 1)
    expected = np.exp(law.intercept - law.s * np.log(rank + law.q))
    return (density > 0) & (density < UNDERUSED_SHARE * expected)


def _reads(found: pa.Table, word: str, vocabulary: list[str], names: Mapping[int, str]) -> NDArray[np.bool_]:
    ids = [id_ for id_, text in enumerate(vocabulary) if word in text.lower()]
    known = found["label"].combine_chunks().dictionary_encode()  # few different ones, on very many latents
    named = np.array([word in label.lower() for label in known.dictionary.to_pylist()] + [False])
    matches = named[known.indices.fill_null(len(named) - 1).to_numpy()]
    for column in ("top_token", "promoted"):
        matches |= np.isin(found[column].fill_null(-1).to_numpy(), ids)
    called = [latent for latent, name in names.items() if word in name.lower()]
    return matches | np.isin(found["latent"].to_numpy(), called)
