"""What trainings will take: worked out, and timed on a few steps, before anything is written."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.table import Table

from saelab.activations.batch import ActivationBatch
from saelab.activations.plan import free_bytes
from saelab.activations.source import ActivationPass
from saelab.progress import si
from saelab.training.config import TrainConfig
from saelab.training.passes import SharedPass, shared_passes
from saelab.training.sizes import Size, memory_of, memory_present, sizes_in
from saelab.training.trainer import Trainer

TIMED_STEPS = 2


@dataclass(frozen=True)
class Planned:
    """One run to be."""

    directory: Path
    config: TrainConfig


@dataclass(frozen=True)
class RunPlan:
    """What one run takes, its activations not counted."""

    name: str
    size: Size
    steps: int
    tokens: int
    seconds: float
    """Of its steps, as two of them took here."""


@dataclass(frozen=True)
class TrainPlan:
    """Sizes are upper bounds."""

    runs: tuple[RunPlan, ...]
    passes: int
    disk_bytes: int
    free_bytes: int
    memory_bytes: int
    """Of the largest pass: the weights and moments of its runs, a step and the buffer; the model comes on top."""
    memory_present: int
    tokens: int
    """Of all passes together."""
    seconds: float
    """Activations and steps of all runs."""

    def lines(self) -> list[str]:
        """The plan as people read it."""
        steps = " or ".join(map(str, sorted({run.steps for run in self.runs})))
        parameters = si(sum(run.size.parameters for run in self.runs))
        passes = f" in {self.passes} passes" if self.passes > 1 else ""
        return [
            f"tokens  {si(self.tokens)}{passes}, {steps} steps, {parameters} parameters",
            f"disk    {self.disk_bytes / 1e9:.2f} GB of {self.free_bytes / 1e9:.2f} GB free",
            f"memory  {self.memory_bytes / 1e9:.2f} GB of {self.memory_present / 1e9:.2f} GB, beside the model",
            f"time    {self.seconds / 60:.1f} min at {si(self.tokens / self.seconds)} tokens/s",
        ]


def table(planned: TrainPlan) -> Table:
    """The runs of a plan, a line each."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    grid.add_column("run", no_wrap=True)
    for column in ("tokens", "steps", "parameters", "disk GB", "memory GB", "minutes"):
        grid.add_column(column, justify="right")
    for run in planned.runs:
        grid.add_row(
            run.name, si(run.tokens), str(run.steps), si(run.size.parameters), f"{run.size.disk_bytes / 1e9:.2f}",
            f"{run.size.kept_bytes / 1e9:.2f}", f"{run.seconds / 60:.1f}",
        )  # fmt: skip
    return grid


def plan(configs: Mapping[Path, TrainConfig], together: int | None = None) -> TrainPlan:
    """Tokens, bytes, memory, free disk and time of the runs in these directories. Writes nothing.

    Raises:
        UserError: whatever would stop the training at its start: a site that isn't there, text that can't be read, …
    """
    passes = shared_passes([Planned(directory, config) for directory, config in configs.items()], together)
    runs: dict[Path, RunPlan] = {}
    memory, present, tokens, seconds = 0, 0, 0, 0.0
    for shared in passes:
        source = shared.open(buffer=shared.config.batch)  # activations are timed as they are made, not in bufferfuls
        memory, present = max(memory, memory_of(shared, source)), memory_present(source.device)
        steps = max(member.config.steps for member in shared.members)
        tokens += steps * shared.config.batch
        made, batches = _timed_batches(shared, source)
        seconds += made * steps
        for member, size in zip(shared.members, sizes_in(shared, source), strict=True):
            run = _plan_run(member, size, batches[shared.feed(member)], source.target_widths(shared.feed(member)))
            runs[member.directory] = run
            seconds += run.seconds
    return TrainPlan(
        runs=tuple(runs[directory] for directory in configs), passes=len(passes),
        disk_bytes=sum(run.size.disk_bytes for run in runs.values()), free_bytes=free_bytes(next(iter(configs))),
        memory_bytes=memory, memory_present=present, tokens=tokens, seconds=seconds,
    )  # fmt: skip


def _timed_batches(
    shared: SharedPass[Planned], source: ActivationPass
) -> tuple[float, list[tuple[ActivationBatch, ...]]]:
    """Seconds to make a batch, and the batches of each feed."""
    batches = source.batches(shared.config.batch, shared.config.order)
    found = [next(batches)]  # the first pays for warming up
    started = time.monotonic()
    found += [next(batches) for _ in range(TIMED_STEPS)]
    return (time.monotonic() - started) / TIMED_STEPS, list(zip(*found, strict=True))


def _plan_run(
    member: Planned, size: Size, batches: tuple[ActivationBatch, ...], target_widths: tuple[int, ...]
) -> RunPlan:
    config = member.config
    trainer = Trainer.begin(config, batches[0], target_widths)
    trainer.step(batches[0])
    started = time.monotonic()
    for batch in batches[1:]:
        trainer.step(batch)
    seconds = (time.monotonic() - started) / TIMED_STEPS * config.steps
    return RunPlan(member.directory.name, size, config.steps, config.steps * config.batch, seconds)
