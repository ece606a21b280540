"""`Ranks`: this process among those of its job."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
            lost = [
                *self.ended(),
                *(f"{member} has given no sign of life for {self.silence_s:g} s" for member in self._silent()),
            ]
            if lost:
                raise LostRankError(self.sentence(lost))

    def meet(self, limit_s: float) -> None:
        """Learn who the others are.

        Raises:
            LostRankError: some have not come after `limit_s` seconds.
        """
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

    def sentence(self, clauses: Sequence[str]) -> str:
        """What is said of lost ranks."""
        return f"{'; '.join(clauses)}; the other ranks stop, and the same command continues"

    def fail(self, why: str) -> bool:
        """Let all ranks stop. True when this rank is the first to say why."""
        try:
            first = self._add("failures", 1) == 1
            if first:
                self._set("failed", why)
        except LostRankError:
            return True  # nobody can be asked
        return first

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

    def _silent(self) -> list[Member]:
        now = time.monotonic()
        for rank in self.members:
            key = f"beat/{rank}"
            said = self._get(key).encode() if self._has([key]) else b""
            if rank not in self._beats or self._beats[rank][0] != said:
                self._beats[rank] = said, now
        late = [rank for rank, (_, since) in self._beats.items() if now - since > self.silence_s]
        return [self.members[rank] for rank in late if rank != self.rank and not self._has([f"left/{rank}"])]

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
