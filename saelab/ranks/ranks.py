"""`Ranks`: this process among those of its job."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from saelab.errors import UserError
from saelab.ranks.member import Member

if TYPE_CHECKING:
    from torch.distributed import Store  # pyright: ignore[reportPrivateImportUsage]

LOOK_S = 1.0  # how often a rank looks after the others
_POLL_S = 0.02


class SaidElsewhereError(UserError):
    """What ends this rank was said by another; the command line ends with the same code and says nothing more."""


class LostRankError(UserError):
    """Another rank ended without a word."""


class Ranks:
    """Rank `rank` of `size`; `Ranks()` is the only one there is.

    `share`, `gather` and `counter` are called by all ranks in the same order; their key says what they are for.
    Waiting never hangs: a rank that fails, ends or falls silent ends the waiting of all others with an error.

    Args:
        local_rank: number among the ranks of this machine.
        store: what the ranks share; None for a single one.
        silence_s: seconds without a sign of life after which a rank counts as lost.

    Attributes:
        speaks: whether it is for this rank to say why all ranks stop.
    """

    def __init__(
        self, rank: int = 0, size: int = 1, local_rank: int = 0, store: Store | None = None, silence_s: float = 60.0
    ) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self.silence_s = silence_s
        self.members: dict[int, Member] = {}
        self._store = store
        self._exchanges = 0
        self._counts: Counter[str] = Counter()
        self._beats: dict[int, tuple[bytes, float]] = {}
        self._looking, self._failing = threading.Lock(), threading.Lock()
        self.speaks = False
        self._looked = 0.0

    @property
    def first(self) -> bool:
        """Whether this rank speaks to people and writes what there is one of."""
        return self.rank == 0

    @property
    def here(self) -> int:
        """How many ranks this machine has, this one included."""
        hosts = [member.host for member in self.members.values()]
        return hosts.count(self.members[self.rank].host) if hosts else 1

    def name(self, rank: int) -> str:
        """A rank as a sentence names it."""
        return str(self.members.get(rank, f"rank {rank}"))

    def device(self, wanted: str) -> str:
        """The device of this rank: with several ranks, "auto" and "cuda" are a GPU for each, where there is CUDA.

        Raises:
            UserError: this machine has fewer GPUs than ranks.
        """
        if self.size == 1 or wanted not in ("auto", "cuda"):
            return wanted
        import torch

        if not torch.cuda.is_available():
            return wanted
        if self.local_rank >= (gpus := torch.cuda.device_count()):
            raise UserError(
                f"rank {self.rank} is number {self.local_rank + 1} on its machine, which has {gpus} GPUs; "
                "set --nproc-per-node to the number of GPUs, or name a device"
            )
        return f"cuda:{self.local_rank}"

    def counter(self, key: str) -> Callable[[int], int]:
        """A sum that begins at 0: a function adds an amount and gives the sum of all ranks so far, in any thread."""
        name = self._next(key)
        return lambda amount: self._add(name, amount)

    def share(self, key: str, value: Callable[[], str]) -> str:
        """What rank 0 computes; the others wait for it."""
        name = self._next(key)
        if self._store is None:
            return value()
        if self.first:
            self._set(name, value())
        return self._wait([name])[0]

    def gather(self, key: str, value: str = "", meanwhile: Callable[[], None] = lambda: None) -> list[str]:
        """Every rank's value, by rank; so no rank goes on before all are here. `meanwhile` is called now and then."""
        name = self._next(key)
        if self._store is None:
            return [value]
        self._set(f"{name}/{self.rank}", value)
        return self._wait([f"{name}/{rank}" for rank in range(self.size)], meanwhile)

    def agree(self, key: str, value: str, what: str) -> None:
        """Make sure that all ranks have the same `value`, before any of them goes on.

        Args:
            what: the value's name in the sentence, as in "the config".

        Raises:
            UserError: on all ranks, the same: one has another value than rank 0.
        """
        values = self.gather(key, value)
        for rank, other in enumerate(values):
            if other != values[0]:
                raise UserError(
                    f"{what} of {self.name(rank)} is {_short(other)}, but that of rank 0 is {_short(values[0])}; "
                    "start all ranks with the same command, the same files and the same versions"
                )

    def check(self) -> None:
        """Raise when another rank has failed or is lost: to be called now and then in long work.

        Raises:
            SaidElsewhereError: another rank failed, and said why.
            LostRankError: another rank ended or fell silent.
        """
        if self._store is None:
            return
        if why := self.failure():
            raise SaidElsewhereError(why)
        if time.monotonic() - self._looked >= LOOK_S:
            self._looked = time.monotonic()
            self.look()

    def look(self) -> None:
        """The same, however short ago the last look was; in any thread.

        Raises:
            SaidElsewhereError, LostRankError: as `check`.
        """
        if why := self.failure():
            raise SaidElsewhereError(why)
        lost = [*self.ended(), *self.silent(self.silence_s)]
        if lost:
            raise LostRankError(self.sentence(lost))

    def begin_group(self, backend: str, patience: timedelta) -> None:
        """Make torch's default process group of these ranks (`mesh.py`); all of them at once."""
        import torch.distributed as dist

        assert self._store is not None  # a single rank has no group
        # A connection of its own: while one waits for a word that never comes, the watch must be able to speak.
        own = self._store.clone()  # pyright: ignore[reportAttributeAccessIssue]
        store = dist.PrefixStore(self._next("tensors"), own)  # pyright: ignore[reportPrivateImportUsage]
        with self.exchanging():
            dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.size, timeout=patience)

    @contextmanager
    def exchanging(self) -> Iterator[None]:
        """Around an exchange of tensors: where it fails because a rank is gone, the error names that rank.

        Raises:
            SaidElsewhereError, LostRankError: as `check`.
        """
        try:
            yield
        except RuntimeError as error:
            if not _is_of_a_connection(error):
                raise
            end = time.monotonic() + self.silence_s
            while time.monotonic() < end:
                self.look()
                time.sleep(_POLL_S)
            raise LostRankError(
                f"the ranks no longer reach one another: {error}; the same command continues"
            ) from error

    def meet(self, limit_s: float) -> None:
        """Learn who the others are.

        Raises:
            LostRankError: some have not come after `limit_s` seconds.
        """
        self.beat(-1)  # before others look for it
        self._set(f"member/{self.rank}", Member.here(self.rank).to_json())
        end = time.monotonic() + limit_s
        while absent := self.absent():
            if time.monotonic() > end:
                raise LostRankError(self.sentence([f"rank {rank} has not joined" for rank in absent]))
            time.sleep(_POLL_S)
        self.members = {r: Member.from_json(self._get(f"member/{r}")) for r in range(self.size)}

    def absent(self) -> list[int]:
        """Ranks that have not joined yet."""
        return [rank for rank in range(self.size) if not self._has([f"member/{rank}"])]

    def ended(self) -> list[str]:
        """A clause for each rank of this machine that ended without leaving."""
        gone = [member for member in self.members.values() if member.rank != self.rank and member.ended()]
        # Looked up after it was seen to have ended, so that one that left in between is not blamed.
        return [
            f"{member} ended without a word (kill -9, out of memory or a crash)"
            for member in gone
            if not self._has([f"left/{member.rank}"])
        ]

    def silent(self, seconds: float) -> list[str]:
        """A clause for each rank that has given no sign of life for so long, as far as this one has looked."""
        now = time.monotonic()
        late: list[Member] = []
        with self._looking:
            for (rank, member), beat in zip(self.members.items(), self._last_beats(), strict=True):
                if rank not in self._beats or self._beats[rank][0] != beat:
                    self._beats[rank] = beat, now
                if now - self._beats[rank][1] > seconds and rank != self.rank:
                    late.append(member)
        return [
            f"{member} has given no sign of life for {seconds:g} s"
            for member in late
            if not self._has([f"left/{member.rank}"])
        ]

    def sentence(self, clauses: Sequence[str]) -> str:
        """What is said of lost ranks."""
        return f"{'; '.join(clauses)}; the other ranks stop, and the same command continues"

    def fail(self, why: str) -> bool:
        """Let all ranks stop, from any thread. True when this rank was the first to say why."""
        with self._failing:
            if not self.speaks:
                try:
                    self.speaks = self._add("failures", 1) == 1
                    if self.speaks:
                        self._set("failed", why)
                except LostRankError:
                    self.speaks = True  # nobody can be asked
            return self.speaks

    def failure(self) -> str:
        """Why a rank has said that all should stop; "" while none has."""
        return self._get("failed") if self._has(["failed"]) else ""

    def beat(self, number: int) -> None:
        """Give a sign of life."""
        self._set(f"beat/{self.rank}", str(number))

    def leave(self) -> None:
        """End without being missed."""
        self._set(f"left/{self.rank}", "")

    def all_left(self) -> bool:
        """Whether all ranks have left or ended."""
        keys = {rank: f"left/{rank}" for rank in self.members}
        return all(member.ended() or self._has([keys[rank]]) for rank, member in self.members.items())

    def _wait(self, keys: list[str], meanwhile: Callable[[], None] = lambda: None) -> list[str]:
        while not self._has(keys):
            self.check()
            meanwhile()
            time.sleep(_POLL_S)
        return [self._get(key) for key in keys]

    def _next(self, key: str) -> str:
        """A name of its own for every exchange, the same on all ranks."""
        self._exchanges += 1
        return f"{self._exchanges} {key}"

    def _add(self, name: str, amount: int) -> int:
        if self._store is None:
            self._counts[name] += amount
            return self._counts[name]
        with self._talk():
            return self._store.add(name, amount)

    def _set(self, key: str, value: str) -> None:
        assert self._store is not None  # a single rank has nobody to tell
        with self._talk():
            self._store.set(key, value)

    def _get(self, key: str) -> str:
        assert self._store is not None  # as above
        with self._talk():
            return self._store.get(key).decode()

    def _last_beats(self) -> list[bytes]:
        if self._store is None:
            return []
        with self._talk():
            return self._store.multi_get([f"beat/{rank}" for rank in self.members])

    def _has(self, keys: list[str]) -> bool:
        assert self._store is not None  # as above
        with self._talk():
            return self._store.check(keys)

    @contextmanager
    def _talk(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # torch's errors of the store all derive from it
            keeper = self.members.get(0)
            if keeper is not None and keeper.ended():
                raise LostRankError(self.sentence([f"{keeper} ended without a word"])) from error
            raise LostRankError(
                "the ranks have lost the store that they share: torchrun, or rank 0, has ended; "
                "the same command continues"
            ) from error


def _is_of_a_connection(error: RuntimeError) -> bool:
    """Whether an exchange failed because of another rank; what is wrong with its tensors is a bug of this one."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or "gloo/" in str(error)


def _short(value: str) -> str:
    return value if len(value) <= 80 else f"{value[:77]}..."
