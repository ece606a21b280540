"""What trainings will take: worked out, and timed on a few steps, before anything is written."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from rich import box
from rich.table import Table

from saelab.activations.batch import ActivationBatch
from saelab.activations.plan import free_bytes
from saelab.activations.source import ActivationPass
from saelab.progress import si
from saelab.ranks import Ranks
from saelab.training.config import TrainConfig
from saelab.training.parallel import Layout, ParallelConfig
from saelab.training.passes import SharedPass, device_of, shared_passes
from saelab.training.sizes import Size, memory_of, memory_present, sizes_in
from saelab.training.team import dealt
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
    """Where a rank is, shared with others of its machine."""
    tokens: int
    """Of all passes together."""
    seconds: float
    """Activations and steps of all runs."""
    ranks: int = 1
    """Processes that divide the work; memory is that of each."""

    def lines(self) -> list[str]:
        """The plan as people read it."""
        steps = " or ".join(map(str, sorted({run.steps for run in self.runs})))
        parameters = si(sum(run.size.parameters for run in self.runs))
        passes = f" in {self.passes} passes" if self.passes > 1 else ""
        each = f" on each of {self.ranks} ranks" if self.ranks > 1 else ""
        exchanges = ", beside what the ranks exchange" if self.ranks > 1 else ""
        return [
            f"tokens  {si(self.tokens)}{passes}, {steps} steps, {parameters} parameters",
            f"disk    {self.disk_bytes / 1e9:.2f} GB of {self.free_bytes / 1e9:.2f} GB free",
            f"memory  {self.memory_bytes / 1e9:.2f} GB of {self.memory_present / 1e9:.2f} GB{each}, beside the model",
            f"time    {self.seconds / 60:.1f} min at {si(self.tokens / self.seconds)} tokens/s{exchanges}",
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


def plan(
    configs: Mapping[Path, TrainConfig],
    together: int | None = None,
    ranks: Ranks | None = None,
    parallel: ParallelConfig = ParallelConfig(),  # noqa: B008 (frozen)
) -> TrainPlan:
    """Tokens, bytes, memory, free disk and time of the runs in these directories. Writes nothing.

    With several ranks this one does what each of them would, but for their exchanges.

    Raises:
        UserError: whatever would stop the training at its start: a site that isn't there, text that can't be read, …
    """
    ranks = ranks or Ranks()
    layout = parallel.layout(ranks.size, list(configs.values()))
    members = [Planned(directory, config) for directory, config in configs.items()]
    passes = shared_passes(members, None if together is None else together * layout.sweep)
    runs: dict[Path, RunPlan] = {}
    memory, present, tokens, seconds = 0, 0, 0, 0.0
    for shared in passes:
        # Activations are timed as they are made, not in bufferfuls.
        source = shared.open(buffer=shared.config.batch, device=device_of(shared.config, ranks))
        shares = _shares(shared, layout, together)
        memory = max(memory, *(memory_of(shared, source, share, layout) for share in shares))
        present = memory_present(source.device, ranks.here)
        steps = max(member.config.steps for member in shared.members)
        tokens += steps * shared.config.batch
        made, batches = _timed_batches(shared, source)
        for member, size in zip(shared.members, sizes_in(shared, source, layout=layout), strict=True):
            feed = shared.feed(member)
            runs[member.directory] = _plan_run(member, size, batches[feed], source.target_widths(feed), layout)
        longest = max(sum(runs[member.directory].seconds for member in share) for share in shares)
        seconds += made * steps / ranks.size + longest
    return TrainPlan(
        runs=tuple(runs[directory] for directory in configs), passes=len(passes),
        disk_bytes=sum(run.size.disk_bytes for run in runs.values()), free_bytes=free_bytes(next(iter(configs))),
        memory_bytes=memory, memory_present=present, tokens=tokens, seconds=seconds, ranks=ranks.size,
    )  # fmt: skip


def _shares(shared: SharedPass[Planned], layout: Layout, together: int | None) -> list[list[Planned]]:
    """What each rank trains, alone or with the others."""
    owners = dealt([member.config.sae.d_sae * member.config.steps for member in shared.members], layout.sweep, together)
    return [
        [member for member, owner in zip(shared.members, owners, strict=True) if owner == rank]
        for rank in range(layout.sweep)
    ]


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
    member: Planned, size: Size, batches: Sequence[ActivationBatch], target_widths: tuple[int, ...], layout: Layout
) -> RunPlan:
    config = _of_a_rank(member.config, layout)
    batches = [_first_tokens(batch, config.batch) for batch in batches]
    trainer = Trainer.begin(config, batches[0], target_widths)
    trainer.step(batches[0])
    started = time.monotonic()
    for batch in batches[1:]:
        trainer.step(batch)
    steps = member.config.steps
    seconds = (time.monotonic() - started) / TIMED_STEPS * steps
    return RunPlan(member.directory.name, size, steps, steps * member.config.batch, seconds)


def _of_a_rank(config: TrainConfig, layout: Layout) -> TrainConfig:
    """A training of the size of one rank's part: its shard of the latents, its slice of a batch."""
    if layout.data * layout.latent == 1:
        return config
    sae = config.sae
    d_sae = max(-(-sae.d_sae // layout.latent), ceil(1 / sae.prefixes[0]))
    shard = sae.model_copy(update={"d_sae": d_sae, "k": min(sae.k, d_sae), "k_warmup": None})
    return config.model_copy(update={"sae": shard, "batch": -(-config.batch // layout.data)})


def _first_tokens(batch: ActivationBatch, n: int) -> ActivationBatch:
    gradient = None if batch.gradient is None else batch.gradient[:n]
    return ActivationBatch(batch.x[:n], batch.target[:n], gradient, batch.tokens[:n])
