"""The one door to language models: ids in, activations out, interventions on the way. Raw weights, always."""

from typing import TYPE_CHECKING, Any

from saelab.models.positions import Positions
from saelab.models.site import Site, SiteKind

if TYPE_CHECKING:
    from saelab.models.fingerprints import tokenizer_fingerprint
    from saelab.models.language_model import LanguageModel
    from saelab.models.taps import Intervention

__all__ = ["Intervention", "LanguageModel", "Positions", "Site", "SiteKind", "tokenizer_fingerprint"]

_HOMES = {"Intervention": "taps", "LanguageModel": "language_model", "tokenizer_fingerprint": "fingerprints"}


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for: configs read a `Site`, and `--help` must answer at once."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
