"""Which architecture's latents steer best at equal k? The steering suite on every one, seed by seed, against TopK.

    OMP_NUM_THREADS=2 python benchmarks/steering_architectures.py            # trains and evaluates what is missing
    OMP_NUM_THREADS=2 python benchmarks/steering_architectures.py --seeds 1 --tokens 50000    # a look

One pass trains all dictionaries on the same batches (a seed decides the first weights alone), one pass over held-out
text and the same places steer them all. Verdicts are on the pairs of equal seed, with Student's 95 % interval, and are
not corrected for their number. Everything lies in the folder --work; the same command again continues where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.tables import Column, markdown, paired, spread  # noqa: E402
from saelab.config import load_config  # noqa: E402
from saelab.disk import write_json  # noqa: E402
from saelab.evaluation.config import EvaluateConfig  # noqa: E402
from saelab.evaluation.evaluate import evaluate  # noqa: E402
from saelab.evaluation.steering.report import SteeringReport  # noqa: E402
from saelab.training import train_all  # noqa: E402
from saelab.training.config import TrainConfig  # noqa: E402

ARCHITECTURES = ("topk", "mutual-choice", "feature-choice", "gradient")
AGAINST = "topk"
MOVES = (
    Column("KL", "kl", 3), Column("largest Δlogit", "largest", 2), Column("agreement", "agreement", 3),
    Column("gain", "gain", 4), Column("harm", "harm", 3), Column("gain per harm", "gain_per_harm", 3),
    Column("gain at harm 0.1", "gain_at_harm", 4), Column("own ×1: KL", "own_kl", 4),
    Column("own ×1: gain per harm", "own_gain_per_harm", 3),
)  # fmt: skip
AIMS = (
    Column("on", "on", 3), Column("off", "off", 4), Column("selectivity", "selectivity", 2),
    Column("harm", "harm", 3), Column("on per harm", "on_per_harm", 3),
)  # fmt: skip
WAYS = ("detects", "foretells")
CLAIMS = ("kl", "own_kl", "gain_at_harm", "foretells on", "foretells selectivity", "foretells on_per_harm")
Numbers = dict[str, float | None]


def configs(arguments: argparse.Namespace) -> dict[Path, TrainConfig]:
    """Settings of every run by its directory."""
    shared = {
        "model": "demo", "site": "blocks.2.resid_post", "corpus.source": "microworld", "sae.d_sae": arguments.d_sae,
        "sae.k": arguments.k, "sae.dead_after": arguments.tokens // 10, "tokens": arguments.tokens, "batch": 1024,
        "buffer": 128_000, "optimizer.lr": 2e-3, "shuffle_seed": 0, "checkpoint_every": arguments.tokens // 2,
        "device": "cpu",
    }  # fmt: skip
    return {
        arguments.work / f"{name}-seed{seed}": load_config(
            TrainConfig, None, {**shared, "sae.preset": name, "seed": seed}
        )
        for name in ARCHITECTURES
        for seed in range(arguments.seeds)
    }


def numbers(report: SteeringReport) -> Numbers:
    """The numbers of tables, and of each way of steering towards labels."""
    found: Numbers = dict(report.metrics.model_dump(mode="json"))
    for way in report.target_means or []:
        found |= {f"{way.way} {column.name}": getattr(way, column.name) for column in AIMS}
    return found


def moves_table(found: dict[tuple[str, int], Numbers]) -> str:
    """A row for each architecture, and for the baselines."""
    rows = [[name, *(spread(_of(found, name, c.name), c.digits) for c in MOVES)] for name in ARCHITECTURES]
    first = next(iter(found.values()))
    for title in ("random", "mean difference"):
        after = "_" + title.replace(" ", "_")
        cells = [spread([first.get(c.name + after)], c.digits) for c in MOVES]
        rows.append([title, *cells])
    return markdown(["", *(column.title for column in MOVES)], rows)


def aims_table(found: dict[tuple[str, int], Numbers]) -> str:
    """Steering towards labels: a row for each architecture and way, and for the baselines."""
    rows = [
        [f"{name}, {way}", *(spread(_of(found, name, f"{way} {c.name}"), c.digits) for c in AIMS)]
        for way in WAYS
        for name in ARCHITECTURES
    ]
    first = next(iter(found.values()))
    for way in ("mean on it", "mean before it", "random"):
        rows.append([way, *(spread([first[f"{way} {c.name}"]], c.digits) for c in AIMS)])
    return markdown(["", *(column.title for column in AIMS)], rows)


def claims_table(found: dict[tuple[str, int], Numbers]) -> str:
    """Is it larger than TopK's?"""
    rows = []
    for name in ARCHITECTURES:
        for number in CLAIMS if name != AGAINST else ():
            ours, theirs = (
                {(seed,): value for (of, seed), n in found.items() if of == whose and (value := n[number]) is not None}
                for whose in (name, AGAINST)
            )
            # The verdict is on "lower", so TopK is ours there and the difference is written the other way round.
            verdict, difference = paired(theirs, ours), paired(ours, theirs)
            if verdict is not None and difference is not None:
                rows.append([f"{name}: {number} above TopK's", difference.text(4), verdict.verdict()])
    return markdown(["claim", "difference", "verdict"], rows)


def _of(found: dict[tuple[str, int], Numbers], name: str, number: str) -> Sequence[float | None]:
    return [numbers[number] for (of, _), numbers in found.items() if of == name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--d-sae", type=int, default=2048)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=400_000, help="of each training")
    parser.add_argument("--work", type=Path, default=ROOT / "build/benchmarks/steering_architectures")
    parser.add_argument("--json", type=Path, help="write settings and numbers to this file")
    arguments = parser.parse_args()
    runs = configs(arguments)
    train_all(runs)
    reports = evaluate(EvaluateConfig.model_validate({"runs": list(runs), "suites": ["steering"], "device": "cpu"}))
    keys = [(name, seed) for name in ARCHITECTURES for seed in range(arguments.seeds)]
    found = {key: numbers(r) for key, r in zip(keys, reports, strict=True) if isinstance(r, SteeringReport)}
    print("\n\n".join([moves_table(found), aims_table(found), claims_table(found)]))
    if arguments.json:
        settings = {name: vars(arguments)[name] for name in ("seeds", "d_sae", "k", "tokens")}
        records = [{"architecture": name, "seed": seed, **of} for (name, seed), of in found.items()]
        write_json(arguments.json, {"settings": settings, "records": records})


if __name__ == "__main__":
    main()
