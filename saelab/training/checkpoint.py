"""Checkpoints: all that a run needs to continue as if it had never stopped."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from saelab.disk import RunPaths, read_json, read_jsonl, staged_directory, write_json, write_text
from saelab.disk.layout import CheckpointPaths
from saelab.disk.tensors import read_tensors, write_tensors
from saelab.errors import UserError

KEEP = 2
SCHEMA = 2


@dataclass(frozen=True)
class State:
    """The small part, as JSON. Batches are a function of their number, so the data needs no state of its own."""

    step: int
    config_digest: str
    bookmarks: list[dict[str, Any]]
    """Places in the text near the next batch: a shortcut, not a need."""


@dataclass(frozen=True)
class Checkpoint:
    """A run after `state.step` steps."""

    state: State
    tensors: dict[str, Tensor]


def save(run: RunPaths, checkpoint: Checkpoint) -> None:
    """Write `checkpoints/step-N/` in one step, then drop all but the newest `KEEP`."""
    with staged_directory(run.checkpoint(checkpoint.state.step), replace=True) as staging:
        write_tensors(CheckpointPaths(staging).tensors, checkpoint.tensors)
        write_json(CheckpointPaths(staging).state, {"schema_version": SCHEMA, **asdict(checkpoint.state)})
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


def read(run: RunPaths, state: State) -> Checkpoint:
    """The whole of a checkpoint."""
    return Checkpoint(state, read_tensors(CheckpointPaths(run.checkpoint(state.step)).tensors))


def rewind_metrics(run: RunPaths, step: int) -> None:
    """Drop metrics written after the checkpoint at `step`: the run is about to write them again."""
    kept = [record for record in read_jsonl(run.metrics) if record["step"] <= step]
    write_text(run.metrics, "".join(json.dumps(record) + "\n" for record in kept))


def _all(run: RunPaths) -> list[Path]:
    """Whole checkpoints, oldest first (names are zero-padded; half-written ones begin with a dot)."""
    return sorted(run.checkpoints.glob("step-*"))
