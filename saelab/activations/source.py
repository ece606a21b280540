"""What trainers want of activations, and what they get, whether these lie on disk or are computed as it goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from saelab.activations.batch import ActivationBatch
from saelab.activations.columns import Column, Rows
from saelab.corpora.config import CorpusConfig
from saelab.corpora.policy import TokenPolicy
from saelab.errors import UserError
from saelab.models import Site


@dataclass(frozen=True)
class Feed:
    """What one training wants of a pass."""

    site: Site
    """What the dictionary encodes."""
    targets: tuple[Site, ...] = ()
    """What it reconstructs, side by side in this order; () is the site itself. Any sites, before or behind it."""
    gradients: bool = False
    """Deliver the gradient of the model's summed loss at the site too."""

    def __post_init__(self) -> None:
        if len(set(self.targets)) < len(self.targets):
            raise UserError(f"target sites {', '.join(map(str, self.targets))}: one is named twice")
        if self.targets == (self.site,):
            object.__setattr__(self, "targets", ())

    @property
    def sites(self) -> tuple[Site, ...]:
        """All its sites, its own first."""
        return self.site, *(target for target in self.targets if target != self.site)

    @property
    def columns(self) -> tuple[Column, ...]:
        """What has to be read or computed for it."""
        gradient = (Column(self.site, gradient=True),) if self.gradients else ()
        return *map(Column, self.sites), *gradient


@dataclass(frozen=True)
class Origin:
    """Where a feed's activations come from; a dictionary stores it."""

    model: str
    model_revision: str | None
    model_fingerprint: str
    tokenizer_fingerprint: str
    site: str
    targets: tuple[str, ...]
    """Sites that are reconstructed; () is `site` itself."""
    corpus: CorpusConfig
    policy: TokenPolicy


class ActivationPass(Protocol):
    """Shuffled activations of kept tokens for several trainings: the same tokens in the same order for all.

    Each feed's batches are, bit for bit, those of a pass with that feed alone.
    """

    feeds: tuple[Feed, ...]
    device: torch.device

    @property
    def n_tokens(self) -> int | None:
        """Kept tokens of an epoch; None when the corpus is endless."""
        ...

    def origin(self, feed: int) -> Origin: ...

    def d_in(self, feed: int) -> int: ...

    def d_out(self, feed: int) -> int: ...

    def target_widths(self, feed: int) -> tuple[int, ...]:
        """Width of each target site; () when the target is the site itself."""
        ...

    def batches(self, batch_size: int, seed: int, start: int = 0) -> Iterator[tuple[ActivationBatch, ...]]:
        """Batches number `start`, `start + 1`, …, for ever, one of each feed; a pure function of (batch_size, seed,
        number), float32, on `device`.

        Raises:
            UserError: `batch_size` exceeds the buffer or the data.
        """
        ...

    def sample(self, n: int) -> tuple[ActivationBatch, ...]:
        """The first `n` rows in shuffled order (fewer when there are fewer), one batch of each feed: for estimates."""
        ...


class ActivationSource:
    """The one feed of a pass that has one."""

    def __init__(self, of: ActivationPass) -> None:
        self.shared, self.device = of, of.device
        self.origin, self.d_in, self.d_out = of.origin(0), of.d_in(0), of.d_out(0)

    @property
    def n_tokens(self) -> int | None:
        """As `ActivationPass.n_tokens`."""
        return self.shared.n_tokens

    def batches(self, batch_size: int, seed: int, start: int = 0) -> Iterator[ActivationBatch]:
        """As `ActivationPass.batches`."""
        return (batch for (batch,) in self.shared.batches(batch_size, seed, start))

    def sample(self, n: int) -> ActivationBatch:
        """As `ActivationPass.sample`."""
        return self.shared.sample(n)[0]


def deliver(rows: Rows, feeds: Sequence[Feed]) -> tuple[ActivationBatch, ...]:
    """Each feed's view of the rows; feeds that want the same tensor get the same."""
    joined: dict[tuple[Site, ...], Tensor] = {}
    batches: list[ActivationBatch] = []
    for feed in feeds:
        wanted = feed.targets or (feed.site,)
        if wanted not in joined:
            parts = [rows.columns[Column(site)] for site in wanted]
            joined[wanted] = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        gradient = rows.columns[Column(feed.site, gradient=True)] if feed.gradients else None
        batches.append(ActivationBatch(rows.columns[Column(feed.site)], joined[wanted], gradient, rows.tokens))
    return tuple(batches)
