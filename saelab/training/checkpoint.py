"""Checkpoints: all that a run needs to continue as if it had never stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from saelab.disk import RunPaths, read_json, read_jsonl, staged_directory, write_json, write_text
from saelab.disk.layout import CheckpointPaths
from saelab.disk.tensors import view_tensors
from saelab.disk.together import TensorRows, begin_file, write_rows
from saelab.errors import UserError
from saelab.ranks import Ranks

KEEP = 2
SCHEMA = 2


@dataclass(frozen=True)
class State:
    """The small part, as JSON. Batches are a function of their number, so the data needs no state of its own."""

    step: int
    config_digest: str
    bookmarks: list[dict[str, Any]]
    """Places in the text near the next batch: a shortcut, not a need."""


def save(run: RunPaths, state: State, parts: Mapping[str, TensorRows], ranks: Ranks) -> None:
    """Write `checkpoints/step-N/` in one step, then drop all but the newest `KEEP`.

    The files are the same however many ranks write them. Nothing takes its name before all rows are on the disk.

    Args:
        parts: what this rank writes of each tensor; of the first rank, all are named.
    """
    where = run.checkpoint(state.step)
    with staged_directory(where, replace=True) if ranks.first else nullcontext() as staging:

        def begun() -> str:
            assert staging is not None  # the first rank has one
            begin_file(CheckpointPaths(staging).tensors, parts)
            return staging.name

        folder = where.parent / ranks.share("checkpoint", begun)
        write_rows(CheckpointPaths(folder).tensors, parts)
        ranks.gather("rows are written")
        if ranks.first:
            write_json(CheckpointPaths(folder).state, {"schema_version": SCHEMA, **asdict(state)})
    if ranks.first:
        for old in _all(run)[:-KEEP]:
            shutil.rmtree(old)


def latest_state(run: RunPaths) -> State | None:
    """Of the newest whole checkpoint; None when there is none."""
    found = _all(run)
    if not found:
        return None
    path = CheckpointPaths(found[-1]).state
    state = read_json(path)
    version = state.pop("schema_version", None)
    if version != SCHEMA:
        raise UserError(
            f"{path} has schema version {version}, this saelab reads version {SCHEMA}; "
            "finish the run with the saelab that began it, or --overwrite to start anew"
        )
    return State(**state)


def read(run: RunPaths, state: State) -> dict[str, Tensor]:
    """All tensors of a checkpoint, as views of its file."""
    return view_tensors(CheckpointPaths(run.checkpoint(state.step)).tensors)


def clear_up(run: RunPaths) -> None:
    """Remove what a process that was killed left half-written; only for who holds the run's lock."""
    for path in (*run.root.glob(".*.partial"), *run.checkpoints.glob(".*.partial")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def rewind_metrics(run: RunPaths, step: int) -> None:
    """Drop metrics written after the checkpoint at `step`: the run is about to write them again."""
    kept = [record for record in read_jsonl(run.metrics) if record["step"] <= step]
    write_text(run.metrics, "".join(json.dumps(record) + "\n" for record in kept))


def _all(run: RunPaths) -> list[Path]:
    """Whole checkpoints, oldest first (names are zero-padded; half-written ones begin with a dot)."""
    return sorted(run.checkpoints.glob("step-*"))
