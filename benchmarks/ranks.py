"""What do ranks bring? Whole training steps of several processes, the bytes they receive, and how fast those travel.

    OMP_NUM_THREADS=1 python benchmarks/ranks.py   # one process, one thread
    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 benchmarks/ranks.py --latent 2            # two of one thread each
    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 benchmarks/ranks.py --data 2
    OMP_NUM_THREADS=2 python benchmarks/ranks.py   # the same cores, two threads

The size is d_sae, k, tokens, width, of the whole dictionary and batch. Every rank has the batch already: reading and
handing it out is not part of the time. Milliseconds of a step on the first rank (median and least), MB that it
received in one, and for comparison a sum of 64 MB over all ranks. Inputs are random, so no latent is ever starved.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from saelab.activations.batch import ActivationBatch
from saelab.config import load_config
from saelab.ranks import joined
from saelab.ranks.mesh import Mesh, meshed
from saelab.training.config import TrainConfig
from saelab.training.trainer import Trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="24576,32,4096,768", metavar="D_SAE,K,BATCH,WIDTH")
    parser.add_argument("--preset", default="topk")
    parser.add_argument("--data", type=int, default=1)
    parser.add_argument("--latent", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--steps", type=int, default=7)
    arguments = parser.parse_args()
    with (
        joined() as ranks,
        meshed(ranks, arguments.data, arguments.latent, ranks.device(arguments.device)) as mesh,
    ):
        d_sae, k, batch, width = map(int, arguments.size.split(","))
        times, received = steps(mesh, arguments.preset, d_sae, k, batch, width, arguments.steps, arguments.device)
        rate = link(mesh, arguments.device)
        if ranks.first:
            print(
                f"{arguments.data} x {arguments.latent}, {torch.get_num_threads()} threads each, {arguments.preset} "
                f"{arguments.size}: step {statistics.median(times):.0f} ms (least {min(times):.0f}), "
                f"received {received / 1e6:.1f} MB" + (f", a sum of 64 MB at {rate / 1e9:.2f} GB/s" if rate else "")
            )


def steps(
    mesh: Mesh, preset: str, d_sae: int, k: int, batch: int, width: int, count: int, device: str
) -> tuple[list[float], int]:
    """Milliseconds of each step, and bytes received in the last; the first two steps warm up."""
    settings = {"sae.preset": preset, "sae.d_sae": d_sae, "sae.k": k, "batch": batch, "tokens": 1000 * batch}
    config = load_config(TrainConfig, None, settings)
    place = mesh.ranks.device(device)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, width, generator=generator).to(place)
    gradient = torch.randn(batch, width, generator=generator).to(place) if preset == "gradient" else None
    some = ActivationBatch(x, x, gradient, torch.arange(batch, device=place))
    trainer = Trainer.begin(config, some, (), mesh)
    times, before = [], Counter(mesh.received)
    for _ in range(count + 2):
        before = Counter(mesh.received)
        mesh.ranks.gather("ready")
        began = time.perf_counter()
        trainer.step(some)
        _wait(place)
        times.append(1e3 * (time.perf_counter() - began))
    return times[2:], (mesh.received - before).total()


def link(mesh: Mesh, device: str) -> float:
    """Bytes per second that a rank receives in a large sum; 0 for one process."""
    if mesh.world.size == 1:
        return 0.0
    place = mesh.ranks.device(device)
    numbers = torch.ones(16 * 2**20, device=place)
    mesh.world.sum(numbers, "warm-up")
    _wait(place)
    before, began = mesh.received["link"], time.perf_counter()
    mesh.world.sum(numbers, "link")
    _wait(place)
    return (mesh.received["link"] - before) / (time.perf_counter() - began)


def _wait(place: str) -> None:
    if place.startswith("cuda"):
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
