"""`joined`: come together, notice who is missing, say once what went wrong, and leave."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from typing import NoReturn

from saelab.errors import UserError
from saelab.ranks.ranks import LostRankError, Ranks, SaidElsewhereError

JOIN_S = 600.0  # a cold disk may take minutes to import torch
_BEAT_S = 1.0
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
    with _sigterm_raises():
        try:
            ranks.meet(JOIN_S)
            with _heartbeat(ranks):
                yield ranks
        except SaidElsewhereError:
            raise
        except _Terminated:
            raise _once(ranks, _why_terminated(ranks)) from None
        except UserError as error:
            raise _once(ranks, error) from None
        except KeyboardInterrupt:
            if not ranks.fail("stopped by Ctrl-C"):
                sys.exit(_EXIT_INTERRUPTED)
            raise
        except BaseException as error:
            ranks.fail(f"{ranks.name(rank)} stopped: {type(error).__name__}: {error}")
            raise
        finally:
            _leave(ranks)


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
def _sigterm_raises() -> Iterator[None]:
    def terminate(*_: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: what follows is the end
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _heartbeat(ranks: Ranks) -> Iterator[None]:
    """Signs of life from a thread, as long as the process runs, whatever its main thread is doing."""
    stop = threading.Event()

    def beat() -> None:
        for number in count():
            try:
                ranks.beat(number)
            except LostRankError:
                break  # the main thread meets the same at its next look
            if stop.wait(_BEAT_S):
                break

    thread = threading.Thread(target=beat, name="saelab-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _once(ranks: Ranks, error: UserError) -> UserError:
    """The error itself on the first rank that has one, `SaidElsewhereError` on all others."""
    return error if isinstance(error, SaidElsewhereError) or ranks.fail(str(error)) else SaidElsewhereError(str(error))


def _why_terminated(ranks: Ranks) -> UserError:
    """torchrun ends the others a moment after it has seen one end."""
    end = time.monotonic() + _LAST_WORDS_S
    try:
        while time.monotonic() < end:
            if why := ranks.failure():
                return SaidElsewhereError(why)
            if gone := ranks.ended():
                return LostRankError(ranks.sentence(gone))
            time.sleep(0.05)
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
