"""Reading a run for the pages: opened once for all visitors, again when its files change.

Nothing here imports torch: pages show what was written, they don't compute on the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import streamlit as st

from app.problems import NothingToShowError
from app.workspace import Run
from saelab.disk import read_json, read_jsonl
from saelab.disk.layout import DictionaryPaths
from saelab.evaluation.report import FidelityReport, Report, SparsityReport, load_report
from saelab.features.index import FeatureIndex
from saelab.features.schema import summary_path

INDEXES_OPEN = 16  # feature indexes kept open at a time; each is a DuckDB handle and small caches
ReportT = TypeVar("ReportT", bound=Report)


def feature_index(run: Run) -> FeatureIndex:
    """The run's feature index.

    Raises:
        NothingToShowError: it has none yet, with the command that makes it.
    """
    summary = summary_path(run.paths.features)
    if not summary.is_file():
        raise NothingToShowError(
            "No feature index yet" if run.has_dictionary else "No dictionary yet",
            "The index says what every latent fires on; it takes one pass over some text."
            if run.has_dictionary
            else "Its training has not finished. The same command continues it; then index it.",
            f"saelab index {run.paths.root}" if run.has_dictionary else None,
        )
    return _open_index(str(run.paths.features), _stamp(summary))


@st.cache_resource(max_entries=INDEXES_OPEN, show_spinner=False)
def _open_index(path: str, stamp: int) -> FeatureIndex:
    return FeatureIndex(Path(path))


def index_stamp(run: Run) -> str:
    """Key for things derived from the feature index: another index, another key."""
    return f"{run.paths.features} {_stamp(summary_path(run.paths.features))}"


def top_tokens(run: Run) -> dict[int, str]:
    """The token with the most of each latent's summed activation; latents that never fired are missing."""
    return _top_tokens(feature_index(run), index_stamp(run))


def labels(run: Run) -> list[str]:
    """Names of the ground-truth labels that are some latent's best; [] where the corpus has none."""
    return _labels(feature_index(run), index_stamp(run))


@st.cache_resource(max_entries=INDEXES_OPEN, show_spinner=False)
def _labels(_index: FeatureIndex, stamp: str) -> list[str]:
    return sorted({label for label in _index.latents()["label"].to_pylist() if label is not None})


@st.cache_resource(max_entries=INDEXES_OPEN, show_spinner=False)
def _top_tokens(_index: FeatureIndex, stamp: str) -> dict[int, str]:
    ids = _index.latents()["top_token"].to_pylist()
    return {latent: _index.vocabulary[id_] for latent, id_ in enumerate(ids) if id_ is not None}


def fidelity(run: Run) -> FidelityReport | None:
    """The fidelity report; None when it has not been made."""
    return _report(FidelityReport, run.paths.report("fidelity"))


def sparsity(run: Run) -> SparsityReport | None:
    """The sparsity report; None when it has not been made."""
    return _report(SparsityReport, run.paths.report("sparsity"))


def _report(cls: type[ReportT], path: Path) -> ReportT | None:
    return _load_report(cls, str(path), _stamp(path)) if path.is_file() else None


@st.cache_resource(max_entries=256, show_spinner=False)
def _load_report(cls: type[ReportT], path: str, stamp: int) -> ReportT:
    return load_report(cls, Path(path))


def dictionary_config(run: Run) -> dict[str, Any]:
    """What `dictionary/config.json` says; {} while there is none."""
    path = DictionaryPaths(run.paths.dictionary).config
    return _load_json(str(path), _stamp(path)) if path.is_file() else {}


@st.cache_resource(max_entries=256, show_spinner=False)
def _load_json(path: str, stamp: int) -> dict[str, Any]:
    return read_json(Path(path))


def metrics(run: Run) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` so far."""
    path = run.paths.metrics
    return _load_metrics(str(path), _stamp(path)) if path.is_file() else []


@st.cache_resource(max_entries=64, show_spinner=False)
def _load_metrics(path: str, stamp: int) -> list[dict[str, Any]]:
    return read_jsonl(Path(path))


def _stamp(path: Path) -> int:
    """Changes when the file does: its time of modification in nanoseconds, mixed with its size."""
    status = path.stat()
    return hash((status.st_mtime_ns, status.st_size, status.st_ino))
