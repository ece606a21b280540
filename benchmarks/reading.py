"""How fast shuffled batches come off the disk, beside plain copies of the same files, in one run.

    python -m benchmarks.reading [--tokens 524288] [--width 768] [--folder DIR]

The floor is the least that any reader must do: every byte of the mapped activation files copied once, in the order of
the disk. A shuffled batch takes two: disk to buffer, buffer to batch (and from there to fp32, which is what it is
delivered in). Rounds of copies and reading take turns; what is told are medians. The files are in the system's cache:
what a disk adds is added to both.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.directory import SITE, write_directory
from saelab.activations import Feed, ShardReader
from saelab.activations.mapped import map_tensors
from saelab.activations.stored import TORCH_TYPES, row_bytes
from saelab.disk import ActivationPaths
from saelab.kernels.allocator import keep_freed_memory

ROUNDS = 5


def copy_all(mapped: Sequence[Tensor], room: Tensor) -> None:
    """Each file's activations into memory that is there."""
    for x in mapped:
        room[: len(x)].copy_(x)


def read_epoch(source: ShardReader, batch: int) -> None:
    """As a training does it."""
    for (got,) in islice(source.batches(batch, seed=0), source.n_tokens // batch):
        assert len(got) == batch


def seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2**19)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--buffer", type=int, default=2**17)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    keep_freed_memory()  # as a training does
    print("stored  file GB  copy GB/s  read GB/s  read/copy  million tokens/s")
    for dtype, stored in TORCH_TYPES.items():
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            directory = write_directory(Path(folder) / "a", arguments.tokens, arguments.width, dtype)
            source = ShardReader(directory, [Feed(SITE)], buffer_tokens=arguments.buffer)
            paths, shards = ActivationPaths(directory), range(len(source.manifest.shards))
            mapped = [map_tensors(paths.activations(str(SITE), number))["x"] for number in shards]
            room = torch.empty_like(mapped[0])
            copy_all(mapped, room)  # into the cache
            read_epoch(source, arguments.batch)
            rounds = [
                (seconds(partial(copy_all, mapped, room)), seconds(partial(read_epoch, source, arguments.batch)))
                for _ in range(ROUNDS)
            ]
        copied, read = (statistics.median(times) for times in zip(*rounds, strict=True))
        size = arguments.tokens * row_bytes(arguments.width, stored) / 1e9
        print(
            f"{dtype:6}  {size:7.2f}  {size / copied:9.2f}  {size / read:9.2f}  {copied / read:9.2f}  "
            f"{arguments.tokens / read / 1e6:16.2f}"
        )


if __name__ == "__main__":
    main()
