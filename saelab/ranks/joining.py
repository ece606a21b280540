"""`joined`: come together, notice who is missing, say once what went wrong, and leave."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NoReturn

from saelab.errors import UserError
from saelab.ranks.ranks import LostRankError, Ranks, SaidElsewhereError
from saelab.ranks.watch import Watch

JOIN_S = 600.0  # a cold disk may take minutes to import torch
_LAST_WORDS_S = 3.0
_EXIT_INTERRUPTED = 130


@contextmanager
def joined(silence_s: float = 60.0) -> Iterator[Ranks]:
    """The ranks of this process's job, as torchrun's environment variables name them; a single one without torchrun.

    An error inside ends the other ranks too, and one of them says it; the others raise `SaidElsewhereError`. SIGTERM,
    with which torchrun ends those that outlive a rank, is such an error: the sentence names the rank that died.

    Args:
        silence_s: seconds without a sign of life after which a rank counts as lost.

    Raises:
        UserError: the variables make no sense, or the others can't be reached.
    """
    rank, size, local_rank = _number("RANK", 0), _number("WORLD_SIZE", 1), _number("LOCAL_RANK", 0)
    if size <= 1:
        yield Ranks()
        return
    ranks = _connect(rank, size, local_rank, silence_s)
    watch = Watch(ranks)
    with _sigterm_raises() as deafen:

        def end_alone() -> None:
            deafen()
            watch.leave_alone()

        try:
            ranks.meet(JOIN_S)
            watch.begin()
            ranks.agree("versions", _versions(), "the software")
            yield ranks
        except BaseException as error:
            end_alone()
            last_word = _last_word(ranks, watch.trouble, error)
            if last_word is error:
                raise
            raise last_word from None
        finally:
            end_alone()
            _leave(ranks)
            watch.stop()


class _Terminated(BaseException):
    """SIGTERM. No `Exception`: nothing on the way may take it for an error of its own."""


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise UserError(f"the environment variable {name} is {text!r}; torchrun sets it to a number")
    return int(text)


def _connect(rank: int, size: int, local_rank: int, silence_s: float) -> Ranks:
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # or torch prints a stack when the store's keeper is gone
    from torch.distributed import PrefixStore  # pyright: ignore[reportPrivateImportUsage]
    from torch.distributed.rendezvous import rendezvous

    if rank >= size:
        raise UserError(f"the environment variable RANK is {rank} but WORLD_SIZE is {size}; torchrun sets both")
    try:
        store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=JOIN_S)))
    except (ValueError, RuntimeError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise UserError(f"rank {rank} can't reach the other ranks at {where}: {error}") from None
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return Ranks(rank, size, local_rank, PrefixStore(f"saelab/{attempt}", store), silence_s)


@contextmanager
def _sigterm_raises() -> Iterator[Callable[[], None]]:
    """SIGTERM raises, until the function that this gives is called: what comes then is the end anyway.

    After an error it stays unheard, or torchrun, which ends those that outlive a rank, might cut off the sentence.
    """

    def deafen() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def terminate(*_: object) -> NoReturn:
        deafen()
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    yield deafen
    signal.signal(signal.SIGTERM, before)


def _versions() -> str:
    import torch

    import saelab

    return f"saelab {saelab.__version__} with torch {torch.__version__}"


def _last_word(ranks: Ranks, trouble: UserError | None, error: BaseException) -> BaseException:
    """What this rank ends with, after the others know why it does; `trouble` is what its watch has found."""
    if isinstance(error, _Terminated):
        return _once(ranks, trouble or _why_terminated(ranks))
    if isinstance(error, UserError):
        return _once(ranks, error)
    if isinstance(error, KeyboardInterrupt):
        return error if ranks.fail("stopped by Ctrl-C") else SystemExit(_EXIT_INTERRUPTED)
    ranks.fail(f"{ranks.name(ranks.rank)} stopped: {type(error).__name__}: {error}")
    return error


def _once(ranks: Ranks, error: UserError) -> UserError:
    """The error itself on the first rank that has one, `SaidElsewhereError` on all others."""
    if isinstance(error, SaidElsewhereError):  # by the watch of this rank itself, it may be
        return LostRankError(str(error)) if ranks.speaks else error
    return error if ranks.fail(str(error)) else SaidElsewhereError(str(error))


def _why_terminated(ranks: Ranks) -> UserError:
    """torchrun ends the others a moment after it has seen one end, whose machine may be another one."""
    end = time.monotonic() + _LAST_WORDS_S
    try:
        while time.monotonic() < end:
            if why := ranks.failure():
                return SaidElsewhereError(why)
            if gone := ranks.ended():
                return LostRankError(ranks.sentence(gone))
            time.sleep(0.05)
        if silent := ranks.silent(_LAST_WORDS_S):
            return LostRankError(ranks.sentence(silent))
    except LostRankError as error:
        return error
    if not ranks.members:
        return LostRankError(ranks.sentence([f"rank {rank} has not joined" for rank in ranks.absent()]))
    return UserError("stopped by SIGTERM; the same command continues")


def _leave(ranks: Ranks) -> None:
    """Let the others know; the rank that may keep the store waits a little, so that they can still read it."""
    try:
        ranks.leave()
        end = time.monotonic() + _LAST_WORDS_S
        while ranks.first and time.monotonic() < end and not ranks.all_left():
            time.sleep(0.02)
    except LostRankError:
        return  # there is nobody left to tell
