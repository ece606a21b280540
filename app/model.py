"""Models and dictionaries in memory: loaded once for all visitors, only for the pages that compute.

Browsing alone needs none of this, so everything that imports torch is imported when it is first called for.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from app.problems import NothingToShowError
from app.reading import stamp
from app.workspace import Run
from saelab.disk.layout import DictionaryPaths
from saelab.errors import UserError

if TYPE_CHECKING:
    from saelab.dictionaries.dictionary import Dictionary
    from saelab.models import LanguageModel

MODELS_KEPT = 2  # language models in memory at a time, whatever the number of visitors
DICTIONARIES_KEPT = 4
HARVEST_GONE = (
    "They say in which precision the model computes. Put the folder back, or write where it is now into the run's "
    "config.yaml, after activations."
)

_loading = threading.Lock()  # one at a time: two at once would each find the memory free that only one can have


def language_model(run: Run) -> LanguageModel:
    """The model that the run's dictionary was trained on, checked to be that one.

    Raises:
        NothingToShowError: it isn't there, doesn't fit into memory, or isn't the one the dictionary was trained on; or
            the activations that the run was trained on are gone, which say in which precision it computes.
    """
    weights = dictionary(run)
    with _sentence("The run's settings can't be read", HARVEST_GONE):
        dtype = _dtype(str(run.paths.root), _stamps([run.paths.config]))
    with _sentence("The language model can't be used", _advice(weights.model_name)):
        model = _load_model(weights.model_name, _model_stamp(weights.model_name), dtype)
        _check(run, weights, model)
    return model


def dictionary(run: Run) -> Dictionary:
    """The run's dictionary, on the device that models run on.

    Raises:
        NothingToShowError: there is none yet, or its files are damaged.
    """
    names = DictionaryPaths(run.paths.dictionary)
    if not names.config.is_file():
        raise NothingToShowError(
            "No dictionary yet", "Its training has not finished. The same `saelab train` command continues it."
        )
    with _sentence("The dictionary can't be read"):
        return _load_dictionary(str(run.paths.dictionary), _dictionary_stamp(run))


def version(run: Run) -> str:
    """Key for things computed with the run's model and dictionary: other files, another key."""
    return f"{run.paths.dictionary} {_dictionary_stamp(run)}"


def vocabulary(run: Run) -> list[str]:
    """Text of each token id of the run's model, leading space included; needs no feature index."""
    model = language_model(run)
    return _token_texts(model, model.fingerprint)


@st.cache_resource(max_entries=DICTIONARIES_KEPT, show_spinner="Loading the dictionary…")
def _load_dictionary(path: str, stamp: int) -> Dictionary:
    with _loading:
        from saelab.dictionaries.artifact import load
        from saelab.models.devices import resolve_device

        return load(path, resolve_device("auto"))


@st.cache_resource(max_entries=MODELS_KEPT, show_spinner="Loading the language model…")
def _load_model(name: str, stamp: int, dtype: str) -> LanguageModel:
    with _loading:
        from saelab.models import LanguageModel

        return LanguageModel.load(name, dtype=dtype)


@st.cache_resource(max_entries=256, show_spinner=False)
def _dtype(root: str, stamp: int) -> str:
    """The precision that the run's activations were made in."""
    from saelab.training.origin import recorded

    return recorded(Path(root)).dtype or "float32"


def _check(run: Run, weights: Dictionary, model: LanguageModel) -> None:
    from saelab.models import Site
    from saelab.training.origin import check_fit

    check_fit(run.name, weights.config, Site.parse(weights.site), model)


def _advice(name: str) -> str:
    if name == "demo":
        return "Install saelab again."
    if name.startswith((".", "~", "/")):
        return "If the folder was moved, put it back; a relative one is looked for from where `saelab browse` started."
    return "If it is on the Hugging Face Hub, this machine must reach it or have downloaded it before."


@contextmanager
def _sentence(title: str, advice: str = "") -> Iterator[None]:
    """Turn what goes wrong while loading into a page that says so, and what to do."""
    try:
        yield
    except UserError as error:
        said = str(error)
        raise NothingToShowError(title, f"{said[:1].upper()}{said[1:]}. {advice}".strip()) from error
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError":  # torch's own kind
            raise
        raise NothingToShowError(
            title, "There is not enough memory for it. Close other programs, or browse on a larger machine."
        ) from error


@st.cache_resource(max_entries=MODELS_KEPT, show_spinner=False)
def _token_texts(_model: LanguageModel, fingerprint: str) -> list[str]:
    from saelab.activations.forward import tokenizer_of
    from saelab.features.vocabulary import token_texts

    return token_texts(tokenizer_of(_model), _model.d_vocab)


def _dictionary_stamp(run: Run) -> int:
    names = DictionaryPaths(run.paths.dictionary)
    return _stamps([names.config, names.weights])


def _model_stamp(name: str) -> int:
    """Changes when the weights in a model's folder do; the same always for a model of the Hub."""
    folder = Path(name).expanduser()
    return _stamps(sorted(folder.glob("*.safetensors"))) if folder.is_dir() else 0


def _stamps(files: Iterable[Path]) -> int:
    """Changes when one of the files does; those that are not there count for nothing."""
    return hash(tuple(stamp(file) for file in files if file.is_file()))
