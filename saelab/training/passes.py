"""Which trainings can share one pass over the activations, and what they want of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from saelab.activations.opening import open_pass
from saelab.activations.source import ActivationPass, Feed
from saelab.activations.stream import ActivationStream, Place
from saelab.corpora.packing import Cursor
from saelab.models import Site
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

    def open(self, buffer: int | None = None) -> ActivationPass:
        """The activations themselves; `buffer` tokens in place of those that the settings say."""
        config = self.config
        return open_pass(
            config.activations, config.model, self.feeds, config.corpus, config.policy,
            buffer=buffer or config.buffer, device=config.device, dtype=config.dtype, seed=config.order,
        )  # fmt: skip


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


def bookmarks(source: ActivationPass) -> list[dict[str, Any]]:
    """Places in the text that a pass has come by, as JSON: with them it need not tokenise its way back."""
    places = source.bookmarks if isinstance(source, ActivationStream) else []
    return [{"cursor": place.cursor.to_json(), "kept": place.kept} for place in places]


def put_bookmarks(source: ActivationPass, places: Sequence[dict[str, Any]]) -> None:
    """Give a pass what `bookmarks` returned of another with the same data settings."""
    if isinstance(source, ActivationStream):
        source.bookmarks = [Place(Cursor(**place["cursor"]), place["kept"]) for place in places]
