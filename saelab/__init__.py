"""saelab: harvest activations, train sparse autoencoders, judge, browse, steer and publish them.

    import saelab
    sae = saelab.load("artifacts/runs/demo")      # or "user/repo:id" on the Hub, or a folder in another tool's format
    codes = sae.encode(x)          # x [..., d_in] → SparseCodes
    x_hat = sae.decode(codes)

What is exported here is public; everything else may change. Nothing heavy is imported until it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from saelab.errors import UserError
from saelab.lazy import exports

if TYPE_CHECKING:
    from saelab.dictionaries.dictionary import Dictionary as Dictionary
    from saelab.hub.open import load as load
    from saelab.kernels.codes import SparseCodes as SparseCodes
    from saelab.models.language_model import LanguageModel as LanguageModel
    from saelab.models.site import Site as Site
    from saelab.steering.steered import steered as steered

__version__ = "0.1.0"

__getattr__, _names = exports(
    __name__,
    {
        "Dictionary": "saelab.dictionaries.dictionary",
        "LanguageModel": "saelab.models.language_model",
        "Site": "saelab.models.site",
        "SparseCodes": "saelab.kernels.codes",
        "load": "saelab.hub.open",
        "steered": "saelab.steering.steered",
    },
)
__all__ = ["Dictionary", "LanguageModel", "Site", "SparseCodes", "UserError", "__version__", "load", "steered"]
