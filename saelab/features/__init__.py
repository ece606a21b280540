"""The feature index: what every latent fires on, built in one pass and queried in milliseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saelab.lazy import exports

if TYPE_CHECKING:
    from saelab.features.build import build_index as build_index
    from saelab.features.config import IndexConfig as IndexConfig
    from saelab.features.index import FeatureIndex as FeatureIndex

__getattr__, __all__ = exports(  # pyright: ignore[reportUnsupportedDunderAll]
    __name__,
    {
        "FeatureIndex": "saelab.features.index",
        "IndexConfig": "saelab.features.config",
        "build_index": "saelab.features.build",
    },
)
