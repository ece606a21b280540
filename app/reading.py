"""Reading a run for the pages: opened once for all visitors, again when its files change.

Nothing here imports torch: pages show what was written, they don't compute on the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import streamlit as st

from app.problems import NothingToShowError
from app.workspace import Run
from saelab.config import build
from saelab.dictionaries.config import DictionaryConfig
from saelab.disk import read_json, read_jsonl
from saelab.disk.layout import DictionaryPaths
from saelab.errors import UserError
from saelab.evaluation.report import FidelityReport, Report, SavedReport, SparsityReport, load_report
from saelab.evaluation.reports import REPORTS, AnyReport
from saelab.evaluation.together.report import TogetherReport
from saelab.features.index import FeatureIndex
from saelab.features.schema import summary_path

if TYPE_CHECKING:
    from saelab.evaluation.config import Suite
    from saelab.evaluation.ioi.report import IoiReport

INDEXES_OPEN = 16  # feature indexes kept open at a time; each is a DuckDB handle and small caches
REPORTS_KEPT = 512  # in memory, parsed; a few kilobytes each
JUDGEMENTS_KEPT = 8  # IOI reports, which hold ten thousands of numbers
ReportT = TypeVar("ReportT", bound=SavedReport)


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
    return _open_index(str(run.paths.features), stamp(summary))


@st.cache_resource(max_entries=INDEXES_OPEN, show_spinner=False)
def _open_index(path: str, stamp: int) -> FeatureIndex:
    return FeatureIndex(Path(path))


def index_stamp(run: Run) -> str:
    """Key for things derived from the feature index: another index, another key."""
    return f"{run.paths.features} {stamp(summary_path(run.paths.features))}"


def n_live(run: Run) -> int:
    """Latents that fired on the text of the index."""
    return _n_live(feature_index(run), index_stamp(run))


@st.cache_resource(max_entries=64, show_spinner=False)
def _n_live(_index: FeatureIndex, stamp: str) -> int:
    return int((_index.latents()["n_active"].to_numpy() > 0).sum())


def weights_stamp(run: Run) -> int:
    """Key for things derived from the dictionary's weights: other weights, another key."""
    return stamp(DictionaryPaths(run.paths.dictionary).weights)


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


def sparsity_if_readable(run: Run) -> SparsityReport | None:
    """The sparsity report where there is one that can be read: for pages that can do without it."""
    try:
        return sparsity(run)
    except (UserError, OSError):
        return None


def report(run: Run, suite: str) -> AnyReport | None:
    """The report of any suite; None when it has not been made."""
    return _report(REPORTS[cast("Suite", suite)], run.paths.report(suite))


def together(run: Run) -> TogetherReport | None:
    """The report of this run's and other dictionaries in one pass; None when it has not been made."""
    return _report(TogetherReport, run.paths.report("together"))


def is_of_earlier_weights(run: Run, report: Report) -> bool:
    """Whether the dictionary was changed after it was evaluated."""
    return report.about.dictionary_sha256 not in (None, dictionary_config(run).get("weights_sha256"))


def ioi(path: Path) -> IoiReport:
    """The IOI report in that file."""
    return _load_ioi(str(path), stamp(path))


@st.cache_resource(max_entries=JUDGEMENTS_KEPT, show_spinner=False)
def _load_ioi(path: str, stamp: int) -> IoiReport:
    from saelab.evaluation.ioi.report import IoiReport

    return load_report(IoiReport, Path(path))


def _report(cls: type[ReportT], path: Path) -> ReportT | None:
    return _load_report(cls, str(path), stamp(path)) if path.is_file() else None


@st.cache_resource(max_entries=REPORTS_KEPT, show_spinner=False)
def _load_report(cls: type[ReportT], path: str, stamp: int) -> ReportT:
    return load_report(cls, Path(path))


def site(run: Run) -> str | None:
    """Where the run's dictionary reads; None while there is none, or where that can't be read."""
    try:
        return dictionary_config(run).get("site")
    except (UserError, OSError):
        return None


def dictionary_config(run: Run) -> dict[str, Any]:
    """What `dictionary/config.json` says; {} while there is none."""
    path = DictionaryPaths(run.paths.dictionary).config
    return _load_config(str(path), stamp(path)) if path.is_file() else {}


@st.cache_resource(max_entries=REPORTS_KEPT, show_spinner=False)
def _load_config(path: str, stamp: int) -> dict[str, Any]:
    content = read_json(Path(path))
    build(DictionaryConfig, content, where=path)  # checked, so that pages need not
    return content


def metrics(run: Run) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` so far."""
    path = run.paths.metrics
    return _load_metrics(str(path), stamp(path)) if path.is_file() else []


@st.cache_resource(max_entries=64, show_spinner=False)
def _load_metrics(path: str, stamp: int) -> list[dict[str, Any]]:
    lines = read_jsonl(Path(path))
    if not all(isinstance(line, dict) and {"step", "tokens"} <= line.keys() for line in lines):
        raise UserError(f"{path} is damaged: a line does not say at which step and token it was written")
    return lines


def stamp(path: Path) -> int:
    """Changes when the file does: its time of modification in nanoseconds, mixed with its size."""
    status = path.stat()
    return hash((status.st_mtime_ns, status.st_size, status.st_ino))
