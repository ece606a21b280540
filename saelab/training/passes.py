"""Which trainings can share one pass over the activations, and what they want of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from saelab.activations.divided import DividedPass
from saelab.activations.opening import open_pass
from saelab.activations.shuffle import ShuffledGroups
from saelab.activations.source import ActivationPass, Feed
from saelab.activations.stream import ActivationStream, Place
from saelab.corpora.packing import Cursor
from saelab.errors import UserError
from saelab.models import Site
from saelab.ranks import Ranks
from saelab.ranks.mesh import Mesh
from saelab.training.config import TrainConfig


class Member(Protocol):
    """Anything that stands for a training."""

    @property
    def config(self) -> TrainConfig: ...


MemberT = TypeVar("MemberT", bound=Member)


@dataclass(frozen=True)
class SharedPass(Generic[MemberT]):
    """Trainings that take the same tokens in the same batches, each at its site."""

    members: tuple[MemberT, ...]

    @property
    def config(self) -> TrainConfig:
        """A config whose data settings are those of all."""
        return self.members[0].config

    @property
    def feeds(self) -> tuple[Feed, ...]:
        """What is wanted, once each."""
        return tuple(dict.fromkeys(feed_of(member.config) for member in self.members))

    def feed(self, member: MemberT) -> int:
        """Which of the feeds is a member's."""
        return self.feeds.index(feed_of(member.config))

    def open(self, buffer: int | None = None, device: str | None = None, overlap: bool | None = None) -> ShuffledGroups:
        """The activations themselves, for one process.

        Args:
            buffer: tokens in place of those that the settings say.
            device: in place of what the settings say.
            overlap: as `ActivationStream`.
        """
        config = self.config
        return open_pass(
            config.activations, config.model, self.feeds, config.corpus, config.policy,
            buffer=buffer or config.buffer, device=device or config.device, dtype=config.dtype,
            seed=config.order, overlap=overlap,
        )  # fmt: skip

    def divided(self, mesh: Mesh, batches: int) -> ActivationPass:
        """The same, which the ranks of a mesh make for one another.

        Args:
            batches: how many will be wanted, from the first of all on.
        """
        device = device_of(self.config, mesh.ranks)
        if mesh.world.size == 1:
            return self.open(device=device)
        # Without overlap: a rank's next group is not the one behind its last.
        return DividedPass(self.open(device=device, overlap=False), mesh, until=batches * self.config.batch)


def shared_passes(members: Sequence[MemberT], together: int | None = None) -> list[SharedPass[MemberT]]:
    """The fewest passes that serve all, at most `together` trainings in each."""
    groups: dict[str, list[MemberT]] = {}
    for member in members:
        groups.setdefault(_data_settings(member.config), []).append(member)
    most = together or max(len(members), 1)
    return [
        SharedPass(tuple(group[first : first + most]))
        for group in groups.values()
        for first in range(0, len(group), most)
    ]


def feed_of(config: TrainConfig) -> Feed:
    """What one training wants of a pass."""
    targets = tuple(map(Site.parse, config.targets))
    return Feed(Site.parse(config.site), targets, config.sae.affinity.kind == "gradient")


def _data_settings(config: TrainConfig) -> str:
    """Equal for trainings that can share a pass."""
    if config.activations:  # whose model and text hold
        said: list[Any] = [config.activations]
    else:
        said = [config.model, config.dtype, config.corpus.model_dump_json(), config.policy.model_dump_json()]
    return repr([*said, config.device, config.batch, config.buffer, config.order])


def device_of(config: TrainConfig, ranks: Ranks) -> str:
    """Where this rank trains."""
    device = ranks.device(config.device)
    if ranks.size == 1:
        return device
    if device == "mps":
        raise UserError("device = mps: processes can't exchange tensors there; give device cpu, or leave out torchrun")
    return device.replace("auto", "cpu")


def bookmarks(source: ActivationPass) -> list[dict[str, Any]]:
    """Places in the text that a pass has come by, as JSON: with them it need not tokenise its way back."""
    stream = _stream(source)
    return [] if stream is None else [{"cursor": p.cursor.to_json(), "kept": p.kept} for p in stream.bookmarks]


def put_bookmarks(source: ActivationPass, places: Sequence[dict[str, Any]]) -> None:
    """Give a pass what `bookmarks` returned of another with the same data settings."""
    if (stream := _stream(source)) is not None:
        stream.bookmarks = [Place(Cursor(**place["cursor"]), place["kept"]) for place in places]


def _stream(source: ActivationPass) -> ActivationStream | None:
    made = source.of if isinstance(source, DividedPass) else source
    return made if isinstance(made, ActivationStream) else None
