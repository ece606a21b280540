"""`saelab train`: from settings to finished run directories; the same call again continues unfinished ones.

Runs that differ in anything but their data share one pass over the activations, step by step: each takes the batches
that it would take alone, so its directory is, bit for bit, the one it would make alone. Several processes train each
run together, or each its own (`parallel.py`); they take the same batches at the same time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path

from saelab.activations.batch import ActivationBatch
from saelab.activations.source import ActivationPass
from saelab.disk import RunPaths, exclusive, require_free_space
from saelab.progress import Board, Unseen, track_together
from saelab.ranks import Ranks
from saelab.ranks.mesh import meshed
from saelab.training import checkpoint
from saelab.training.agreement import agree_on_data, agree_on_settings
from saelab.training.config import TrainConfig
from saelab.training.parallel import ParallelConfig
from saelab.training.passes import SharedPass, bookmarks, device_of, put_bookmarks, shared_passes
from saelab.training.run import Run, discard, require_same_settings
from saelab.training.sizes import require_memory, sizes_in
from saelab.training.team import Team
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
    configs: Mapping[Path, TrainConfig],
    overwrite: bool = False,
    together: int | None = None,
    profile: bool = False,
    *,
    ranks: Ranks | None = None,
    parallel: ParallelConfig = ParallelConfig(),  # noqa: B008 (frozen)
) -> None:
    """Train one dictionary into each run directory, on as few passes over the activations as their settings allow.

    Finished runs are left alone and unfinished ones continue, each from its own last checkpoint. One whose loss is no
    longer a number is saved and stops; the others go on.

    Args:
        together: the most runs that are in the memory of a process at once; None for all that can share a pass.
        profile: say at the end where the time of each run's steps went.
        ranks: the processes that share the work (`saelab.ranks.joined`); each calls this with the same arguments.
        parallel: what they divide.

    Raises:
        UserError: as `train`; before anything is trained, but for losses, which are told at the end. Or a rank differs
            or died.
    """
    ranks = ranks or Ranks()
    agree_on_settings(ranks, configs, parallel, overwrite=overwrite, together=together)
    layout = parallel.layout(ranks.size, list(configs.values()))
    parent = os.path.commonpath([directory.absolute().parent for directory in configs])
    with ExitStack() as held:
        ranks.share("begun", lambda: _prepare(configs, overwrite, held))
        on_gpu = any(device_of(config, ranks).startswith("cuda") for config in configs.values())
        mesh = held.enter_context(meshed(ranks, layout.data * layout.sweep, layout.latent, "cuda" if on_gpu else "cpu"))
        team = Team(mesh, layout, together)
        runs = [
            Run(directory, config, os.path.relpath(directory, parent), profile, team.of_a_run)
            for directory, config in configs.items()
        ]
        ranks.agree("runs", json.dumps([[run.stage, run.done] for run in runs]), "what is there of the runs")
        _train([run for run in runs if run.is_open], runs, team)
        team.tell_troubles(runs)
        if profile:
            _tell_times(runs, team)
    _report_divergence(runs)


def _prepare(configs: Mapping[Path, TrainConfig], overwrite: bool, held: ExitStack) -> str:
    """Take the runs' directories for this process, and make sure that they may be written."""
    for directory, config in configs.items():
        paths = RunPaths(directory)
        held.enter_context(exclusive(paths.lock))
        checkpoint.clear_up(paths)
        if overwrite:
            discard(paths)
        require_same_settings(paths, config)
    return ""


def _train(open_runs: Sequence[Run], runs: Sequence[Run], team: Team) -> None:
    passes = shared_passes(open_runs, team.together)
    if not passes:
        return
    source = _open_all(passes, team)
    total = sum(shared.config.batch * max(run.config.steps for run in shared.members) for shared in passes)
    done = sum(shared.config.batch * min(run.done for run in shared.members) for shared in passes)
    shown = team.mesh.ranks.first
    with (
        track_together([run.name for run in runs], COLUMNS, total, "train", done=done)
        if shown
        else nullcontext(Unseen())
    ) as board:
        for run in runs:
            _show(board, run)
        for shared in passes:
            _train_together(shared, source or _open(shared, team), board, team)
            source = None  # before the next pass opens: two would hold two models and two buffers


def _open(shared: SharedPass[Run], team: Team) -> ActivationPass:
    return shared.divided(team.mesh, batches=max(run.last for run in shared.members))


def _open_all(passes: Sequence[SharedPass[Run]], team: Team) -> ActivationPass:
    """Open every pass, so that settings that can't be met are refused before hours of work; the first stays open."""
    needed, source = 0, None
    for shared in reversed(passes):
        source = None  # before the next opens: two would hold two models
        source = _open(shared, team)
        agree_on_data(team.mesh.ranks, shared.config, source)
        require_memory(shared, source, team.mine(shared.members), team.layout, team.mesh.ranks)
        needed += sum(size.disk_bytes for size in sizes_in(shared, source))
    runs = [run for shared in passes for run in shared.members]
    where = runs[0].paths.root
    what = f"the run {where}" if len(runs) == 1 else f"the training of {len(runs)} runs into {where.parent}"
    require_free_space(where, needed, what)
    assert source is not None  # there is a pass
    return source


def _train_together(shared: SharedPass[Run], source: ActivationPass, board: Board, team: Team) -> None:
    """One pass over the data, from the least advanced run to the end of the longest."""
    runs, mine = shared.members, team.mine(shared.members)
    batch, steps = shared.config.batch, max(run.config.steps for run in runs)
    first, last = min(run.done for run in runs), max(run.last for run in runs)
    batches = source.batches(batch, shared.config.order, start=first)
    _begin(shared, mine, source, board)
    for number, feeds in zip(range(first, last), batches, strict=False):
        for run in mine:
            if run.wants(number):
                _give(run, feeds[shared.feed(run)], source, board)
        board.advance(batch if number < steps else 0)
        if team.looks(number - first):
            _look(shared, mine, source, board, team)
            if not any(run.is_open for run in runs):
                break
    _look(shared, mine, source, board, team)


def _begin(shared: SharedPass[Run], mine: Sequence[Run], source: ActivationPass, board: Board) -> None:
    golden = source.sample(GOLDEN_TOKENS)
    samples = {n: source.sample(n) for n in sorted({run.sample_tokens for run in shared.members}) if n}
    least = min(shared.members, key=lambda run: run.done)
    for run in mine:
        feed = shared.feed(run)
        sample = samples[run.sample_tokens][feed] if run.sample_tokens else None
        run.begin(source.origin(feed), golden[feed], sample, source.target_widths(feed))
        if run.is_complete:  # it was stopped between its last step and its dictionary
            _end(run)
        _show(board, run)
    if least.state is not None:
        put_bookmarks(source, least.state.bookmarks)


def _give(run: Run, batch: ActivationBatch, source: ActivationPass, board: Board) -> None:
    said, stage = run.said, run.stage
    if run.take(batch):
        run.save(bookmarks(source))
    if run.is_complete:
        _end(run)
    elif not run.is_open:
        run.let_go()
    if run.said is not said or run.stage != stage:
        _show(board, run)


def _end(run: Run) -> None:
    run.finish()
    run.let_go()


def _look(shared: SharedPass[Run], mine: Sequence[Run], source: ActivationPass, board: Board, team: Team) -> None:
    """See how the runs of other ranks are doing."""
    team.look(shared.members, mine, source.device)
    for run in shared.members:
        if run not in mine:
            _show(board, run)


def _show(board: Board, run: Run) -> None:
    said = run.said
    cells: dict[str, str] = {}
    if said.get("fvu") is not None:
        cells = dict(zip(COLUMNS, (f"{said['fvu']:.3f}", f"{said['l0']:.1f}", f"{said['dead']:,}"), strict=True))
    board.show(run.name, run.stage, cells)


def _tell_times(runs: Sequence[Run], team: Team) -> None:
    """Where the time of the steps went: of ranks that train a run together, on the first."""
    own = [f"{r.name}, {r.clock.steps} steps, the time of one:\n{r.clock.table()}" for r in runs if r.clock is not None]
    told = team.mesh.ranks.gather("times", "\n".join(own))
    if team.mesh.ranks.first:
        print("\n".join(text for text in (told if team.spread else told[:1]) if text))


def _report_divergence(runs: Sequence[Run]) -> None:
    troubles = {run.name: run.trouble for run in runs if run.trouble is not None}
    if len(runs) == 1:
        for trouble in troubles.values():
            raise trouble
    if troubles:
        told = "; ".join(f"{name}: {trouble}" for name, trouble in troubles.items())
        raise DivergedError(f"{len(troubles)} of {len(runs)} runs diverged, the others are finished: {told}")
