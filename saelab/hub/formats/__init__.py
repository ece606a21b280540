"""Every format that saelab reads and writes, and the one that a folder is in."""

from __future__ import annotations

from pathlib import Path

from saelab.errors import UserError
from saelab.hub.formats.circuit_tracer import CircuitTracer
from saelab.hub.formats.dictionary_learning import DictionaryLearning
from saelab.hub.formats.format import Entry, Format, Imported
from saelab.hub.formats.gemma_scope import GemmaScope, GemmaScope2
from saelab.hub.formats.own import Own
from saelab.hub.formats.placed import placed
from saelab.hub.formats.saelens import SaeLens
from saelab.hub.formats.sparsify import Sparsify

__all__ = ["FORMATS", "Entry", "Format", "Imported", "named", "placed", "read", "recognise"]

FORMATS: tuple[Format, ...] = (
    Own(), SaeLens(), Sparsify(), DictionaryLearning(), GemmaScope(), GemmaScope2(), CircuitTracer()
)  # fmt: skip


def named(name: str) -> Format:
    """The format of that name.

    Raises:
        UserError: there is none.
    """
    for form in FORMATS:
        if form.name == name:
            return form
    raise UserError(f"format {name!r} is unknown; these are known: {', '.join(form.name for form in FORMATS)}")


def recognise(folder: Path) -> Format:
    """The format that the files in `folder` are in.

    Raises:
        UserError: there is no such folder, or no format or more than one claims its files.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder" if folder.exists() else f"{folder} does not exist")
    fitting = [form for form in FORMATS if form.recognises(folder)]
    if len(fitting) > 1:
        raise UserError(
            f"{folder} holds dictionaries in several formats ({', '.join(form.name for form in fitting)}); "
            "put each into a folder of its own"
        )
    if not fitting:
        raise UserError(f"{folder} holds no dictionary in a known format ({', '.join(form.name for form in FORMATS)})")
    return fitting[0]


def read(folder: Path) -> Imported:
    """The dictionary in `folder`, whatever its format.

    Raises:
        UserError: no format fits, or the one that fits refuses the files.
    """
    return recognise(folder).read(folder)
