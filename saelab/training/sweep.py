"""`saelab train`: from settings to finished run directories; the same call again continues unfinished ones.

Runs that differ in anything but their data share one pass over the activations, step by step: each takes the batches
that it would take alone, so its directory is, bit for bit, the one it would make alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from saelab.activations.batch import ActivationBatch
from saelab.activations.source import ActivationPass
from saelab.disk import RunPaths, exclusive, require_free_space
from saelab.progress import Board, track_together
from saelab.training.config import TrainConfig
from saelab.training.passes import SharedPass, bookmarks, put_bookmarks, shared_passes
from saelab.training.run import Run, discard, require_same_settings
from saelab.training.sizes import require_memory, sizes_in
from saelab.training.trainer import DivergedError

GOLDEN_TOKENS = 16
COLUMNS = ("FVU", "L0", "dead")


def train(config: TrainConfig, out: Path, overwrite: bool = False) -> Path:
    """Train one dictionary into the run directory `out` and return it.

    A finished run with the same settings is left alone; an unfinished one continues from its last checkpoint and ends
    with the weights an uninterrupted run would have (bit for bit on the CPU); other settings are refused.

    Raises:
        UserError: settings that can't be met, a run made with other settings, or a loss that is not a number.
    """
    train_all({out: config}, overwrite)
    return out


def train_all(
    configs: Mapping[Path, TrainConfig], overwrite: bool = False, together: int | None = None, profile: bool = False
) -> None:
    """Train one dictionary into each run directory, on as few passes over the activations as their settings allow.

    Finished runs are left alone and unfinished ones continue, each from its own last checkpoint. One whose loss is no
    longer a number is saved and stops; the others go on.

    Args:
        together: the most runs that are in memory at once; None for all that can share a pass.
        profile: say at the end where the time of each run's steps went.

    Raises:
        UserError: as `train`; before anything is trained, but for losses, which are told at the end.
    """
    with ExitStack() as held:
        for directory, config in configs.items():
            paths = RunPaths(directory)
            held.enter_context(exclusive(paths.lock))
            if overwrite:
                discard(paths)
            require_same_settings(paths, config)
        parent = os.path.commonpath([directory.absolute().parent for directory in configs])
        runs = [
            Run(directory, config, os.path.relpath(directory, parent), profile) for directory, config in configs.items()
        ]
        _train([run for run in runs if run.is_open], runs, together)
    for run in runs:
        if run.clock is not None:
            print(f"{run.name}, {run.clock.steps} steps, the time of one:\n{run.clock.table()}")
    _report_divergence(runs)


def _train(open_runs: Sequence[Run], runs: Sequence[Run], together: int | None) -> None:
    passes = shared_passes(open_runs, together)
    if not passes:
        return
    source = _open_all(passes)
    total = sum(shared.config.batch * max(run.config.steps for run in shared.members) for shared in passes)
    done = sum(shared.config.batch * min(run.done for run in shared.members) for shared in passes)
    with track_together([run.name for run in runs], COLUMNS, total, "train", done=done) as board:
        for run in runs:
            _show(board, run)
        for shared in passes:
            _train_together(shared, source or shared.open(), board)
            source = None  # before the next pass opens: two would hold two models and two buffers


def _open_all(passes: Sequence[SharedPass[Run]]) -> ActivationPass:
    """Open every pass, so that settings that can't be met are refused before hours of work; the first stays open."""
    needed, source = 0, None
    for shared in reversed(passes):
        source = None  # before the next opens: two would hold two models
        source = shared.open()
        require_memory(shared, source)
        needed += sum(size.disk_bytes for size in sizes_in(shared, source))
    runs = [run for shared in passes for run in shared.members]
    where = runs[0].paths.root
    what = f"the run {where}" if len(runs) == 1 else f"the training of {len(runs)} runs into {where.parent}"
    require_free_space(where, needed, what)
    assert source is not None  # there is a pass
    return source


def _train_together(shared: SharedPass[Run], source: ActivationPass, board: Board) -> None:
    """One pass over the data, from the least advanced run to the end of the longest."""
    runs = [(run, shared.feed(run)) for run in shared.members]
    batch, steps = shared.config.batch, max(run.config.steps for run in shared.members)
    number = min(run.done for run in shared.members)
    batches = source.batches(batch, shared.config.order, start=number)
    _begin(runs, source, board)
    while any(run.is_open for run in shared.members):
        feeds = next(batches)
        for run, feed in runs:
            if run.wants(number):
                _give(run, feeds[feed], source, board)
        number += 1
        board.advance(batch if number <= steps else 0)


def _begin(runs: Sequence[tuple[Run, int]], source: ActivationPass, board: Board) -> None:
    golden = source.sample(GOLDEN_TOKENS)
    samples = {n: source.sample(n) for n in {run.sample_tokens for run, _ in runs} if n}
    for run, feed in runs:
        sample = samples[run.sample_tokens][feed] if run.sample_tokens else None
        run.begin(source.origin(feed), golden[feed], sample, source.target_widths(feed))
        _show(board, run)
    least = min((run for run, _ in runs), key=lambda run: run.done)
    if least.state is not None:
        put_bookmarks(source, least.state.bookmarks)


def _give(run: Run, batch: ActivationBatch, source: ActivationPass, board: Board) -> None:
    said, stage = run.said, run.stage
    if run.take(batch):
        run.save(bookmarks(source))
    if run.is_complete:
        run.finish()
    if not run.is_open:
        run.let_go()
    if run.said is not said or run.stage != stage:
        _show(board, run)


def _show(board: Board, run: Run) -> None:
    said = run.said
    cells: dict[str, str] = {}
    if said.get("fvu") is not None:
        cells = dict(zip(COLUMNS, (f"{said['fvu']:.3f}", f"{said['l0']:.1f}", f"{said['dead']:,}"), strict=True))
    board.show(run.name, run.stage, cells)


def _report_divergence(runs: Sequence[Run]) -> None:
    troubles = {run.name: run.trouble for run in runs if run.trouble is not None}
    if len(runs) == 1:
        for trouble in troubles.values():
            raise trouble
    if troubles:
        told = "; ".join(f"{name}: {trouble}" for name, trouble in troubles.items())
        raise DivergedError(f"{len(troubles)} of {len(runs)} runs diverged, the others are finished: {told}")
