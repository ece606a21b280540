"""`ShardReader`: shuffled batches of a harvested directory, at memory-map speed and in constant memory."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saelab.activations.batch import ActivationBatch
from saelab.activations.manifest import Manifest
from saelab.activations.mapped import map_tensors
from saelab.activations.shuffle import Group, ShuffledGroups
from saelab.activations.source import Origin
from saelab.disk import ActivationPaths
from saelab.errors import UserError
from saelab.models import Site

BLOCK = 256  # neighbouring tokens that are read together; a group holds buffer_tokens / BLOCK places of the text
_OPEN_FILES = 64


class ShardReader(ShuffledGroups):
    """Activations of one site. Many readers may share a directory.

    Each epoch visits blocks of `BLOCK` neighbouring tokens in an order given by (seed, epoch); a group is as many of
    them as fill the buffer, wherever in the directory they lie. What is left over by the last whole block comes last.

    Args:
        buffer_tokens: tokens held in memory, in the stored type, and shuffled together.
        target: site to reconstruct, when it is another than `site`.
        gradients: deliver the gradients harvested at `site` too.
        device: where the buffer lies and batches are delivered.

    Raises:
        UserError: the directory is unfinished, damaged, or does not hold what is asked for.
    """

    def __init__(
        self,
        directory: Path | str,
        site: Site,
        *,
        buffer_tokens: int = 262_144,
        target: Site | None = None,
        gradients: bool = False,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        super().__init__(buffer_tokens, seed, torch.device(device))
        self.paths = ActivationPaths(Path(directory))
        self.manifest = Manifest.load(self.paths.root)
        self.site, self.target, self.gradients = site, target or site, gradients
        self._check()
        self.d_in = self.manifest.sites[str(self.site)].width
        self.d_out = self.manifest.sites[str(self.target)].width
        self._ends = list(accumulate(shard.kept for shard in self.manifest.shards))
        self.n_tokens: int = self._ends[-1]
        self.origin = Origin(
            self.manifest.model, self.manifest.model_revision, self.manifest.model_fingerprint,
            self.manifest.tokenizer_fingerprint, str(self.site), str(self.target),
            self.manifest.config.corpus, self.manifest.config.policy,
        )  # fmt: skip
        self._maps: OrderedDict[Path, Tensor] = OrderedDict()
        self._buffer: ActivationBatch | None = None
        self._loaded: tuple[Group, int, int] | None = None
        self._blocks: tuple[tuple[int, int], NDArray[np.int64]] | None = None

    @property
    def scale(self) -> float:
        """sqrt(d_in / E|x|²) over all kept tokens."""
        scale = self.manifest.sites[str(self.site)].scale
        assert scale is not None  # a finished manifest has it
        return scale

    def _check(self) -> None:
        root, manifest = self.paths.root, self.manifest
        if not manifest.finished:
            raise UserError(f"{root} is an unfinished harvest; run the same saelab harvest again and it continues")
        for site in (self.site, self.target):
            if str(site) not in manifest.sites:
                raise UserError(f"{root} has no activations of site {site}; it has {', '.join(manifest.sites)}")
        if self.gradients and not manifest.config.gradients:
            raise UserError(f"{root} holds no gradients; harvest with gradients: true")
        missing = manifest.damage(root, checksums=False)
        if missing:
            raise UserError(f"{root}: {missing[0]}; run its harvest again with --overwrite")

    def _available(self, n: int) -> int:
        return min(n, self.n_tokens)

    def _place(self, token: int) -> tuple[Group, int]:
        epoch, within = divmod(token, self.n_tokens)
        number, offset = divmod(within, self.buffer_tokens)
        size = min(self.buffer_tokens, self.n_tokens - number * self.buffer_tokens)
        return Group(epoch, number, size), offset

    def _load(self, group: Group, seed: int, count: int) -> ActivationBatch:
        if self._loaded != (group, seed, count):
            if self._buffer is None or len(self._buffer) < count:
                self._buffer = self._empty(count)
            self._loaded = None  # while the buffer is neither the old group nor the new one
            at = 0
            for shard, first, stop in self._runs(group, seed, count):
                self._read(shard, first, stop, at)
                at += stop - first
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

    def _read(self, shard: int, first: int, stop: int, at: int) -> None:
        assert self._buffer is not None  # made by _load
        to, rows = slice(at, at + stop - first), slice(first, stop)
        self._buffer.x[to] = self._map(self.paths.activations(str(self.site), shard), "x", shard)[rows]
        if self._buffer.target is not self._buffer.x:
            self._buffer.target[to] = self._map(self.paths.activations(str(self.target), shard), "x", shard)[rows]
        if self._buffer.gradient is not None:
            self._buffer.gradient[to] = self._map(self.paths.gradients(str(self.site), shard), "grad", shard)[rows]
        begin = self._ends[shard] - self.manifest.shards[shard].kept
        self._buffer.tokens[to] = torch.arange(begin + first, begin + stop)

    def _map(self, path: Path, name: str, shard: int) -> Tensor:
        """A shard's tensor as a view of its file; the files used last stay open."""
        if path not in self._maps:
            tensor = map_tensors(path).get(name)
            kept = self.manifest.shards[shard].kept
            if tensor is None or tensor.shape[0] != kept:
                raise UserError(f"{path} is damaged: it does not hold {name} of {kept} tokens")
            self._maps[path] = tensor
        self._maps.move_to_end(path)
        if len(self._maps) > _OPEN_FILES:
            self._maps.popitem(last=False)
        return self._maps[path]

    def _empty(self, rows: int) -> ActivationBatch:
        def like(path: Path, name: str) -> Tensor:
            stored = self._map(path, name, 0)
            return torch.empty(rows, stored.shape[1], dtype=stored.dtype, device=self.device)

        x = like(self.paths.activations(str(self.site), 0), "x")
        target = x if self.target == self.site else like(self.paths.activations(str(self.target), 0), "x")
        gradient = like(self.paths.gradients(str(self.site), 0), "grad") if self.gradients else None
        return ActivationBatch(x, target, gradient, torch.empty(rows, dtype=torch.int64, device=self.device))
