"""Checkpoints: all that a run needs to continue as if it had never stopped."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from saelab.disk import RunPaths, read_json, read_jsonl, staged_directory, write_json, write_text
from saelab.disk.layout import CheckpointPaths
from saelab.disk.tensors import read_tensors, write_tensors
from saelab.errors import UserError

KEEP = 2


@dataclass(frozen=True)
class Checkpoint:
    """State after `step` steps; batches are a function of their number, so the data needs no state of its own."""

    step: int
    scale: float
    config_digest: str
    tensors: dict[str, Tensor]


def save(run: RunPaths, checkpoint: Checkpoint) -> None:
    """Write `checkpoints/step-N/` in one step, then drop all but the newest `KEEP`."""
    directory = run.checkpoint(checkpoint.step)
    with staged_directory(directory, replace=True) as staging:
        write_tensors(CheckpointPaths(staging).tensors, checkpoint.tensors)
        write_json(
            CheckpointPaths(staging).state,
            {
                "schema_version": 1, "step": checkpoint.step, "scale": checkpoint.scale,
                "config_digest": checkpoint.config_digest,
            },
        )  # fmt: skip
    for old in _all(run)[:-KEEP]:
        shutil.rmtree(old)


def latest(run: RunPaths) -> Checkpoint | None:
    """The newest whole checkpoint, or None when there is none."""
    found = _all(run)
    if not found:
        return None
    names = CheckpointPaths(found[-1])
    state = read_json(names.state)
    if state.get("schema_version") != 1:
        raise UserError(f"{names.state} has schema version {state.get('schema_version')}; this saelab reads version 1")
    return Checkpoint(state["step"], state["scale"], state["config_digest"], read_tensors(names.tensors))


def rewind_metrics(run: RunPaths, step: int) -> None:
    """Drop metrics written after the checkpoint at `step`: the run is about to write them again."""
    kept = [record for record in read_jsonl(run.metrics) if record["step"] <= step]
    write_text(run.metrics, "".join(json.dumps(record) + "\n" for record in kept))


def _all(run: RunPaths) -> list[Path]:
    """Whole checkpoints, oldest first (names are zero-padded; half-written ones begin with a dot)."""
    return sorted(run.checkpoints.glob("step-*"))
