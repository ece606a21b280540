"""`ShardReader`: shuffled batches of a harvested directory, at memory-map speed and in constant memory."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saelab.activations.columns import Column, Rows
from saelab.activations.manifest import Manifest, how_to_repair
from saelab.activations.mapped import map_tensors
from saelab.activations.shuffle import Group, ShuffledGroups
from saelab.activations.source import Feed, Origin
from saelab.activations.stored import storage_type
from saelab.disk import ActivationPaths
from saelab.errors import UserError
from saelab.models import Site

BLOCK = 256  # neighbouring tokens that are read together; a group holds buffer_tokens / BLOCK places of the text
_OPEN_FILES = 64


class ShardReader(ShuffledGroups):
    """Activations of some sites of a directory. Many readers may share a directory.

    Each epoch visits blocks of `BLOCK` neighbouring tokens in an order given by (seed, epoch); a group is as many of
    them as fill the buffer, wherever in the directory they lie. What is left over by the last whole block comes last.
    Memory: one buffer of `buffer_tokens` rows for each column (site, or gradients at a site) in the stored type, and
    8 bytes for every 256 tokens of the directory.

    Args:
        buffer_tokens: tokens held in memory and shuffled together.
        device: where the buffer lies and batches are delivered.

    Raises:
        UserError: the directory is unfinished, damaged, or does not hold what is asked for.
    """

    def __init__(
        self,
        directory: Path | str,
        feeds: Sequence[Feed],
        *,
        buffer_tokens: int = 262_144,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        self.paths = ActivationPaths(Path(directory))
        self.manifest = Manifest.load(self.paths.root)
        self._check(feeds)
        widths = {site: self.manifest.sites[str(site)].width for feed in feeds for site in feed.sites}
        super().__init__(feeds, widths, buffer_tokens, seed, torch.device(device))
        self._ends = list(accumulate(shard.kept for shard in self.manifest.shards))
        self._maps: OrderedDict[Path, dict[str, Tensor]] = OrderedDict()
        self._buffer: Rows | None = None
        self._loaded: tuple[Group, int, int] | None = None
        self._blocks: tuple[tuple[int, int], NDArray[np.int64]] | None = None

    @property
    def n_tokens(self) -> int:
        """Kept tokens of the directory."""
        return self._ends[-1]

    def origin(self, feed: int) -> Origin:
        """As the manifest says."""
        manifest, wanted = self.manifest, self.feeds[feed]
        return Origin(
            manifest.model, manifest.model_revision, manifest.model_fingerprint, manifest.tokenizer_fingerprint,
            str(wanted.site), tuple(map(str, wanted.targets)), manifest.config.corpus, manifest.config.policy,
        )  # fmt: skip

    def scale(self, site: Site) -> float:
        """sqrt(width / E|x|²) at a site over all kept tokens."""
        scale = self.manifest.sites[str(site)].scale
        assert scale is not None  # a finished manifest has it
        return scale

    def _check(self, feeds: Sequence[Feed]) -> None:
        root, manifest = self.paths.root, self.manifest
        if not manifest.finished:
            raise UserError(f"{root} is an unfinished harvest; run the same saelab harvest again and it continues")
        for site in (site for feed in feeds for site in feed.sites):
            if str(site) not in manifest.sites:
                raise UserError(f"{root} has no activations of site {site}; it has {', '.join(manifest.sites)}")
        if any(feed.gradients for feed in feeds) and not manifest.config.gradients:
            raise UserError(f"{root} holds no gradients; harvest with gradients: true")
        missing = manifest.damage(root, checksums=False)
        if missing:
            raise UserError(f"{root}: {missing[0]}; {how_to_repair(root)}")

    def _available(self, n: int) -> int:
        return min(n, self.n_tokens)

    def _place(self, token: int) -> tuple[Group, int]:
        epoch, within = divmod(token, self.n_tokens)
        number, offset = divmod(within, self.buffer_tokens)
        size = min(self.buffer_tokens, self.n_tokens - number * self.buffer_tokens)
        return Group(epoch, number, size), offset

    def _load(self, group: Group, seed: int, count: int, delivered: Tensor) -> Rows:
        if self._loaded != (group, seed, count):
            self._loaded = None  # while the buffer is neither the old group nor the new one
            at = 0
            for shard, first, stop in self._runs(group, seed, count):
                part = self._rows(shard, first, stop)
                if self._buffer is None or len(self._buffer) < count:
                    self._buffer = part.room(count, self.device)
                self._buffer.put(slice(at, at + len(part)), part)
                at += len(part)
            self._loaded = group, seed, count
        assert self._buffer is not None  # made above
        return self._buffer

    def _runs(self, group: Group, seed: int, count: int) -> Iterator[tuple[int, int, int]]:
        """(shard, first row, stop row) of the group's first `count` rows, in the order in which they lie on disk."""
        for first, stop in sorted(self._spans(group, seed, count)):
            while first < stop:
                shard = bisect_right(self._ends, first)
                begin = self._ends[shard] - self.manifest.shards[shard].kept
                end = min(stop, self._ends[shard])
                yield shard, first - begin, end - begin
                first = end

    def _spans(self, group: Group, seed: int, count: int) -> Iterator[tuple[int, int]]:
        """The same as ranges of kept tokens, in the order of the epoch's blocks."""
        blocks = self._block_order(seed, group.epoch)
        at = group.number * self.buffer_tokens
        stop = at + count
        while at < stop:
            block, within = divmod(at, BLOCK)
            first = (int(blocks[block]) if block < len(blocks) else block) * BLOCK + within
            length = min(BLOCK - within, stop - at)
            yield first, first + length
            at += length

    def _block_order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Order of the whole blocks; 8 bytes for 256 tokens."""
        if self._blocks is None or self._blocks[0] != (seed, epoch):
            order = np.random.default_rng([seed, 0, epoch]).permutation(self.n_tokens // BLOCK)
            self._blocks = (seed, epoch), order
        return self._blocks[1]

    def _rows(self, shard: int, first: int, stop: int) -> Rows:
        """Rows of a shard, as views of its files."""
        begin = self._ends[shard] - self.manifest.shards[shard].kept
        columns: dict[Column, Tensor] = {}
        row_scales: dict[Column, Tensor] = {}
        for column in self.columns:
            stored = self._map(column, shard)
            columns[column] = stored[column.key][first:stop]
            if "row_scale" in stored:
                row_scales[column] = stored["row_scale"][first:stop]
        return Rows(columns, torch.arange(begin + first, begin + stop), row_scales)

    def _map(self, column: Column, shard: int) -> dict[str, Tensor]:
        """A shard's tensors as views of their file; the files used last stay open."""
        path = column.path(self.paths, shard)
        if path not in self._maps:
            self._maps[path] = self._checked(column, shard, path)
        self._maps.move_to_end(path)
        if len(self._maps) > max(_OPEN_FILES, len(self.columns)):
            self._maps.popitem(last=False)
        return self._maps[path]

    def _checked(self, column: Column, shard: int, path: Path) -> dict[str, Tensor]:
        tensors = map_tensors(path)
        kept, dtype = self.manifest.shards[shard].kept, storage_type(self.manifest.config.dtype, column.gradient)
        wanted = {column.key: (dtype, (kept, self._widths[column.site]))}
        scale = {"row_scale": (torch.float32, (kept,))} if dtype == torch.int8 else {}
        for name, kind in (wanted | scale).items():
            if name not in tensors or (tensors[name].dtype, tuple(tensors[name].shape)) != kind:
                what = f"{path} is damaged: it does not hold {name} of {kept} tokens"
                raise UserError(f"{what}; {how_to_repair(self.paths.root)}")
        return {name: tensors[name] for name in wanted | scale}
