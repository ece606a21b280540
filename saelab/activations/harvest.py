"""`saelab harvest`: text through a model, activations of many sites into shards.

A shard counts from the moment its entry is written, after its files. A harvest that is killed goes on with the shards
that are not there, and what it leaves in the end is the same to the byte, however often it was killed and however many
processes (`torchrun`) shared the work.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from itertools import chain
from pathlib import Path

from saelab.activations.beginning import agreed, begin, earlier_harvest, require_ours, require_same_folder
from saelab.activations.config import HarvestConfig
from saelab.activations.division import Work, claims, passes
from saelab.activations.forward import Forward, tokenizer_of
from saelab.activations.ledger import FinishedShard, Ledger
from saelab.activations.manifest import CorpusPlace
from saelab.activations.plan import HarvestPlan, columns_of, load_model, plan
from saelab.activations.prefetch import prefetch
from saelab.activations.repair import make_again, squares_of
from saelab.activations.report import Made, report
from saelab.activations.settling import settle
from saelab.activations.shards import ShardBuffer
from saelab.corpora.packing import leftover
from saelab.corpora.rows import Cursor
from saelab.corpora.sources import is_endless
from saelab.corpora.standard_input import require_lasting
from saelab.disk import ActivationPaths, exclusive
from saelab.errors import UserError
from saelab.models import LanguageModel
from saelab.progress import Bar, track
from saelab.ranks import Ranks

_SEEN_S = 60.0  # a network file system may take its time to show what another machine has written


def harvest(
    config: HarvestConfig,
    out: Path,
    overwrite: bool = False,
    model: LanguageModel | None = None,
    *,
    repair: bool = False,
    ranks: Ranks | None = None,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Write a directory of activations, or go on with one, and return it.

    Shards that are there are left as they are. Those that are missing or cut short are made again, also in a directory
    that was finished.

    Args:
        overwrite: remove an earlier harvest at `out` first.
        model: a loaded model to use in place of `config.model` (which should name it).
        repair: read all files that are there, and make again those that do not have their checksum.
        ranks: the processes that share the work (`saelab.ranks.joined`); each calls this with the same arguments.
        say: told the plan before anything is written, and in the end what was done, line by line.

    Raises:
        UserError: settings that can't be met, too little disk, `out` made with other settings or holding other things,
            a rank that differs or died.
    """
    out, ranks = Path(out), ranks or Ranks()
    if ranks.size > 1 and config.device_map is not None:
        raise UserError(
            f"device_map: {config.device_map} spreads one model over a machine's devices, and torchrun gives each of "
            f"{ranks.size} processes a model of its own; use one of the two"
        )
    broken = json.loads(ranks.share("broken", lambda: json.dumps(_broken(config, out, overwrite, repair))))
    if broken is None:
        return out
    model = model or load_model(config.model_copy(update={"device": ranks.device(config.device)}))
    intended = agreed(plan(config, out, model, measure=say is not None), config, model, ranks)
    if say is not None and ranks.first:
        for line in [*intended.lines(), *_circumstances(config, out, overwrite, broken, ranks)]:
            say(line)

    def started() -> str:
        earlier = None if overwrite else earlier_harvest(out, config)  # again: another process may have been here since
        return begin(out, config, earlier, broken, intended, model).to_json()

    with _locked(out, ranks):
        work = Work.from_json(ranks.share("work", started))
        require_same_folder(out, work, ranks)
        made = _make(config, out, intended, work, model, ranks)
        if ranks.first:
            _settle(config, out, work, made, model)
            if say is not None:
                for name, value in report(Ledger(out), made):
                    say(f"{name:<12}{value}")
        ranks.gather("settled")
    return out


def _broken(config: HarvestConfig, out: Path, overwrite: bool, repair: bool) -> list[int] | None:
    """Numbers of finished shards that are not whole; None when there is nothing to be done at all."""
    require_ours(out)
    ledger = None if overwrite else earlier_harvest(out, config)
    if ledger is None:
        return []
    broken = sorted({found.shard for found in ledger.damage(checksums=repair)})
    if broken or not ledger.manifest.finished:
        require_lasting(config.corpus)
        return broken
    if ledger.paths.entries.exists():  # a harvest was killed between its last two steps
        with exclusive(ledger.paths.lock):
            settle(Ledger(out), lambda place: None)
    return None


def _circumstances(
    config: HarvestConfig, out: Path, overwrite: bool, broken: Sequence[int], ranks: Ranks
) -> Iterator[str]:
    """What a plan can't know: what is there already, and who shares the work."""
    earlier = None if overwrite else earlier_harvest(out, config)
    if earlier is not None:
        again = f", of which {len(broken)} are damaged and made again" if broken else ""
        yield f"there   {len(earlier.shards)} shards of an earlier run{again}"
    if ranks.size > 1:
        yield f"ranks   {ranks.size} processes, {ranks.here} of them on this machine, which share the memory above"


def _locked(out: Path, ranks: Ranks) -> AbstractContextManager[None]:
    """One harvest at a time in a directory."""
    return exclusive(ActivationPaths(out).lock) if ranks.first else nullcontext()


def _make(
    config: HarvestConfig, out: Path, intended: HarvestPlan, work: Work, model: LanguageModel, ranks: Ranks
) -> Made:
    """This rank's share of the shards, and then the wait for all others."""
    ledger = Ledger(out)
    columns = columns_of(intended.sites, config)
    forward = Forward(model, config.policy, columns)
    buffer = ShardBuffer(config, {column: intended.sites[column.site] for column in columns})
    numbers = claims(work, ranks.counter("shards taken"))
    mine: list[int] = []
    started = time.monotonic()
    with (
        _progress(ledger, intended, work, ranks) as progress,
        closing(prefetch(passes(config, forward.tokenizer, numbers, ledger.starts), depth=4)) as todo,
    ):
        for number, rows in todo:
            ranks.check()
            if number not in mine[-1:]:
                mine.append(number)
            buffer.add(*forward(rows))
            if full := buffer.n_rows == config.shard_rows:
                _write_shard(ledger, number, buffer)
            progress.advance(rows.ids.numel(), shards=int(full))
        if buffer.n_rows:
            _write_shard(ledger, mine[-1], buffer)
            progress.advance(0, shards=1)
        told = ranks.gather("made", json.dumps(mine), meanwhile=progress.refresh)
    return Made(sorted(chain.from_iterable(map(json.loads, told))), time.monotonic() - started)


def _write_shard(ledger: Ledger, number: int, buffer: ShardBuffer) -> None:
    listed, end = ledger.shards.get(number), buffer.rows[-1].next
    if listed is None:
        counts = [rows.counts() for rows in buffer.rows]
        shard = buffer.write(ledger.paths, number).model_copy(
            update={
                "excluded": {reason: n for reason in counts[0] if (n := sum(count[reason] for count in counts))},
                "dropped": sum(rows.dropped for rows in buffer.rows),
                "squares": squares_of(buffer),
            }
        )
    else:
        shard = make_again(ledger.directory, number, listed, buffer)
    after = CorpusPlace(document=end.document, token=end.token, row=end.row)
    ledger.put(number, FinishedShard(shard=shard, next=after))
    buffer.clear()


def _settle(config: HarvestConfig, out: Path, work: Work, made: Made, model: LanguageModel) -> None:
    """Gather what all ranks have made into the manifest."""
    if lost := sorted(set(work.numbers) - set(made.numbers)):
        raise UserError(
            f"shard {lost[0]} of {out} can't be made again: corpus {config.corpus.source!r} ends before it; "
            "bring the text back as it was, or --overwrite starts anew"
        )
    paths = ActivationPaths(out)
    end = time.monotonic() + _SEEN_S
    while unseen := [number for number in made.numbers if not paths.entry(number).exists()]:
        if time.monotonic() > end:
            raise UserError(f"shard {unseen[0]} was written, but {out} does not show it; run the same harvest again")
        time.sleep(0.1)

    def left_over(place: CorpusPlace) -> int | None:
        if place.row >= config.rows or is_endless(config.corpus):
            return None
        cursor = Cursor(document=place.document, token=place.token, row=place.row)
        return leftover(config.corpus, tokenizer_of(model), config.policy, cursor)

    settle(Ledger(out), left_over)


class _Progress:
    """What all ranks have done, on the bar of the first one."""

    def __init__(self, ranks: Ranks, bar: Bar | None, there: int, shards: int) -> None:
        self.tokens, self.written = ranks.counter("tokens"), ranks.counter("shards written")
        self.bar, self.there, self.shards = bar, there, shards
        self.shown = 0

    def advance(self, tokens: int, shards: int = 0) -> None:
        """This rank has done so many more."""
        self.tokens(tokens)
        self.written(shards)
        self.refresh()

    def refresh(self) -> None:
        """Show what the others have done."""
        if self.bar is not None:
            done = self.tokens(0)
            self.bar.advance(done - self.shown, f"{self.there + self.written(0)} of {self.shards} shards")
            self.shown = done


@contextmanager
def _progress(ledger: Ledger, intended: HarvestPlan, work: Work, ranks: Ranks) -> Iterator[_Progress]:
    whole = {number: shard.rows for number, shard in ledger.shards.items() if number not in set(work.numbers)}
    there = sum(whole.values()) * ledger.manifest.config.policy.context
    ends = work.onwards is None  # then the number of shards is known
    total, shards = (ledger.n_tokens, len(ledger.shards)) if ends else (intended.tokens, intended.shards)
    with track(total, "harvest", done=there) if ranks.first else nullcontext() as bar:
        yield _Progress(ranks, bar, len(whole), shards)
