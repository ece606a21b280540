"""What does it cost that ranks select as one? Each selection of a rank alone, shared, and the product beside it.

    torchrun --nproc-per-node 2 benchmarks/selection.py                          # --data 1 --latent 2
    torchrun --nproc-per-node 2 benchmarks/selection.py --data 2 --latent 1
    torchrun --nproc-per-node 2 benchmarks/selection.py --size 65536,32,8192,768 --device cuda

A size is d_sae, k, tokens, width: of the whole dictionary and batch, of which a rank has its part. "Alone" is what the
local backend takes for the rank's own scores with the rank's share of the budget; "shared" is the same choice with the
budget of all, exchange and waiting for the slowest rank included. Least and median milliseconds of several rounds on
the first rank, and bytes that it received in one. Scores are random; inputs are, too.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from saelab.kernels.backend import choose
from saelab.ranks import joined
from saelab.ranks.mesh import Mesh, meshed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="24576,32,4096,768", metavar="D_SAE,K,BATCH,WIDTH")
    parser.add_argument("--data", type=int, default=1)
    parser.add_argument("--latent", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with joined() as ranks, meshed(ranks, arguments.data, arguments.latent, arguments.device) as mesh:
        device = torch.device("cuda", ranks.rank) if arguments.device == "cuda" else torch.device("cpu")
        size = [int(number) for number in arguments.size.split(",")]
        lines = [line(*of, mesh, arguments.rounds) for of in stages(size, mesh, device)]
        if ranks.rank == 0:
            print(f"{arguments.data} × {arguments.latent} ranks, {torch.get_num_threads()} threads each, {size}")
            print("stage                     least   median    received")
            print("\n".join(lines))


def stages(size: list[int], mesh: Mesh, device: torch.device) -> list[tuple[str, Callable[[], Any]]]:
    """What is timed."""
    d_sae, k, tokens, width = size
    B, F, N = len(mesh.data.part(tokens)), len(mesh.latent.part(d_sae)), mesh.world.size
    generator = torch.Generator(device).manual_seed(mesh.world.index)
    x, W, b = (torch.randn(*shape, device=device, generator=generator) for shape in ((B, width), (F, width), (F,)))
    local, shared = choose("auto", device), choose("auto", device, mesh)
    z = local.pre_activations(x, W, b, by_latent=False).clone()
    by_latent = z.T.contiguous().T
    own = torch.full((F,), max(1, round(k * B / d_sae)))
    budgets = torch.full((F,), max(1, round(k * tokens / d_sae)))
    return [
        ("product", lambda: local.pre_activations(x, W, b, by_latent=False)),
        ("token choice, alone", lambda: local.select_token(z, k)),
        ("token choice, shared", lambda: shared.select_token(z, k)),
        ("mutual choice, alone", lambda: local.select_mutual(z, k * tokens // N)),
        ("mutual choice, shared", lambda: shared.select_mutual(z, k * tokens)),
        ("feature choice, alone", lambda: local.select_feature(by_latent, own)),
        ("feature choice, shared", lambda: shared.select_feature(by_latent, budgets)),
    ]


def line(name: str, stage: Callable[[], Any], mesh: Mesh, rounds: int) -> str:
    """Times of one stage; all ranks begin each round together."""
    times = []
    for _ in range(rounds + 1):  # the first warms up
        mesh.world.sum(torch.zeros(1), "start")
        mesh.received.clear()
        start = time.perf_counter()
        stage()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    return f"{name:<24}{min(times[1:]):7.1f}{statistics.median(times[1:]):9.1f}{mesh.received.total():12,}"


if __name__ == "__main__":
    main()
