"""Activations: harvested to disk or computed on the fly, and read as shuffled batches either way.

`saelab.activations.harvest.harvest` writes a directory; `open_pass` (for several trainings at once) and `open_source`
read one or run the model instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from saelab.lazy import exports

if TYPE_CHECKING:
    from saelab.activations.batch import ActivationBatch as ActivationBatch
    from saelab.activations.config import HarvestConfig as HarvestConfig
    from saelab.activations.manifest import Manifest as Manifest
    from saelab.activations.opening import open_pass as open_pass
    from saelab.activations.opening import open_source as open_source
    from saelab.activations.plan import HarvestPlan as HarvestPlan
    from saelab.activations.reader import ShardReader as ShardReader
    from saelab.activations.source import ActivationPass as ActivationPass
    from saelab.activations.source import ActivationSource as ActivationSource
    from saelab.activations.source import Feed as Feed
    from saelab.activations.stream import ActivationStream as ActivationStream

__getattr__, __all__ = exports(  # pyright: ignore[reportUnsupportedDunderAll]
    __name__,
    {
        "ActivationBatch": "saelab.activations.batch",
        "ActivationPass": "saelab.activations.source",
        "ActivationSource": "saelab.activations.source",
        "ActivationStream": "saelab.activations.stream",
        "Feed": "saelab.activations.source",
        "HarvestConfig": "saelab.activations.config",
        "HarvestPlan": "saelab.activations.plan",
        "Manifest": "saelab.activations.manifest",
        "ShardReader": "saelab.activations.reader",
        "open_pass": "saelab.activations.opening",
        "open_source": "saelab.activations.opening",
    },
)
