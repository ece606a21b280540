"""Occlusion and over-splitting in the two toy models of `saelab.evaluation.ioi.toys`, by architecture.

    OMP_NUM_THREADS=1 python benchmarks/ioi_toys.py                  # 3 architectures × 3 seeds, 6 minutes on a core
    OMP_NUM_THREADS=1 python benchmarks/ioi_toys.py --quick          # a look: TopK, one seed

Occlusion: share of names with a latent of F1 > 0.5, by how large u_S is beside u_IO and by how much of u_IO was taken
out of the activations before training. Over-splitting: latents that make up ABB, and BAB, by the size of the noise
around the two and by the size of the dictionary (one latent active per token).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from jaxtyping import Float  # noqa: E402
from torch import Tensor  # noqa: E402

from benchmarks.tables import markdown, spread  # noqa: E402
from saelab.disk import write_json  # noqa: E402
from saelab.evaluation.ioi import toys  # noqa: E402
from saelab.evaluation.ioi.config import TaskSaeConfig  # noqa: E402
from saelab.evaluation.ioi.features import Features, of_dictionary  # noqa: E402
from saelab.evaluation.ioi.phenomena import occlusion, splitting  # noqa: E402
from saelab.evaluation.ioi.supervised import Design, fit  # noqa: E402
from saelab.evaluation.ioi.task_saes import train_on, training_of  # noqa: E402
from saelab.progress import track  # noqa: E402
from saelab.training.config import Preset  # noqa: E402

ARCHITECTURES: tuple[Preset, ...] = ("topk", "relu", "gated")
RATIOS, ALPHAS = (0.15, 0.25, 0.5, 1.0), (0.0, 0.5, 1.0)
NOISES, SIZES = (0.3, 0.6, 1.0), (4, 16, 64)
NAMES, PARTS = ("IO", "S"), (("latents", 1), ("F1", 2))

Record = dict[str, Any]


def trainer(preset: Preset, d_sae: int, k: int, seed: int) -> Callable[[Float[Tensor, "n d"]], Features]:
    """What makes a dictionary of an architecture from some activations."""
    sizes = TaskSaeConfig(d_sae=d_sae, k=k, tokens=200_000, batch=512, lr=3e-3)
    config = training_of(preset, sizes, toys.ORIGIN, seed)
    return lambda x: of_dictionary(preset, train_on(x, config, toys.ORIGIN))


def drowned(preset: Preset, ratio: float, seed: int) -> list[Record]:
    """What is named when so much of u_IO is left."""
    toy = toys.occluded(ratio=ratio, seed=seed)
    vectors = fit(Design.of(toy.prompts), toy.x)
    found = occlusion(toy.x, toy.prompts, vectors, trainer(preset, 64, 2, seed), ALPHAS)
    about = {"architecture": preset, "ratio": ratio, "seed": seed}
    return [{**about, "alpha": part.alpha, "IO": part.named["IO"], "S": part.named["S"]} for part in found]


def splits(preset: Preset, noise: float, d_sae: int, seed: int) -> Record:
    """How many latents make up either value of Pos."""
    toy = toys.split(noise=noise, seed=seed)
    codes = trainer(preset, d_sae, 1, seed)(toy.x).encode(toy.x, toy.prompts)
    found = [splitting(codes, toy.prompts.pos, value) for value in (0, 1)]
    return {
        "architecture": preset, "noise": noise, "d_sae": d_sae, "seed": seed,
        "latents": sum(len(part.latents) for part in found) / 2, "F1": min(max(p.f1, default=0.0) for p in found),
    }  # fmt: skip


def report(occluded: list[Record], split: list[Record], architectures: tuple[Preset, ...]) -> str:
    """Two tables, mean ± standard deviation over seeds."""

    def cell(records: list[Record], name: str, digits: int, factor: float = 1.0, **where: Any) -> str:
        return spread([r[name] for r in records if where.items() <= r.items()], digits, factor)

    shares = [
        [f"{preset}, u_S {ratio} of u_IO"]
        + [cell(occluded, name, 0, 100, architecture=preset, ratio=ratio, alpha=at) for at in ALPHAS for name in NAMES]
        for preset, ratio in product(architectures, RATIOS)
    ]
    numbers = [
        [f"{preset}, noise {noise}"]
        + [cell(split, *part, architecture=preset, noise=noise, d_sae=F) for F in SIZES for part in PARTS]
        for preset, noise in product(architectures, NOISES)
    ]
    return "\n\n".join(
        [
            "Names with a latent of their own, %:",
            markdown(["", *(f"{name}, α = {a}" for a in ALPHAS for name in NAMES)], shares),
            "Latents that make up one value of Pos, and the F1 that they reach:",
            markdown(["", *(f"{name}, d_sae {F}" for F in SIZES for name, _ in PARTS)], numbers),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="TopK and one seed: to see that it works")
    parser.add_argument("--json", type=Path, help="write the records to this file")
    arguments = parser.parse_args()
    architectures, seeds = (ARCHITECTURES[:1], 1) if arguments.quick else (ARCHITECTURES, arguments.seeds)
    occluded, split = [], []
    total = len(architectures) * seeds * (len(RATIOS) * len(ALPHAS) + len(NOISES) * len(SIZES))
    with track(total, "toys", unit="dictionaries") as bar:
        for preset, seed in product(architectures, range(seeds)):
            for ratio in RATIOS:
                occluded += drowned(preset, ratio, seed)
                bar.advance(len(ALPHAS), f"{preset}: u_S {ratio} of u_IO")
            for noise, d_sae in product(NOISES, SIZES):
                split.append(splits(preset, noise, d_sae, seed))
                bar.advance(1, f"{preset}: noise {noise}, {d_sae} latents")
    print(report(occluded, split, architectures))
    if arguments.json:
        write_json(arguments.json, {"occlusion": occluded, "splitting": split})


if __name__ == "__main__":
    main()
