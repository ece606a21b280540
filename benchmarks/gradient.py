"""Gradient SAEs against TopK: a β sweep, evaluated without and (leaking) with the gradient in sight, and steered.

    OMP_NUM_THREADS=1 python benchmarks/gradient.py            # 6 values of β × 3 seeds, about 20 minutes on one core
    OMP_NUM_THREADS=1 python benchmarks/gradient.py --quick    # a look: 2 values, 1 seed, few tokens
    OMP_NUM_THREADS=1 python benchmarks/gradient.py --activations build/benchmarks/architectures/activations

One harvest with gradients, one pass over it that trains all dictionaries on the same batches, one pass over held-out
text that evaluates them. A seed decides a dictionary's first weights. β = 0 is trained as what it is, TopK.

Steering adds a vector at the last position of random starts of held-out text: for random latents that fired on
`--unit-tokens` of it, at "own ×a" a times the latent's largest activation there, and at "equal ×c" the same length for
all, c times the mean distance of an activation from the mean activation. "random" are random directions of that length.

Everything lies in the folder --work; the same command again continues where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.steering import SHARES, Steering  # noqa: E402
from benchmarks.tables import Column, markdown, paired, spread  # noqa: E402
from saelab.activations.config import HarvestConfig  # noqa: E402
from saelab.activations.harvest import harvest  # noqa: E402
from saelab.activations.manifest import Manifest  # noqa: E402
from saelab.config import load_config  # noqa: E402
from saelab.disk import RunPaths, read_json, read_jsonl, write_json  # noqa: E402
from saelab.evaluation.config import EvaluateConfig  # noqa: E402
from saelab.evaluation.evaluate import evaluate  # noqa: E402
from saelab.evaluation.report import FidelityReport  # noqa: E402
from saelab.progress import track  # noqa: E402
from saelab.training import train_all  # noqa: E402
from saelab.training.config import TrainConfig  # noqa: E402

SITE = "blocks.2.resid_post"
BETAS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
FRESH = 1.05  # harvested beyond what is trained on
RANDOM = "random"
QUICK = {
    "betas": (0.0, 1.0), "seeds": 1, "tokens": 65_536, "eval_tokens": 4096, "latents": 16, "contexts": 8,
    "unit_tokens": 2048,
}  # fmt: skip
FREE = (
    Column("FVU", "fvu", 4), Column("ΔCE", "delta_ce", 4), Column("KL", "kl", 4),
    Column("recovered (zero) %", "loss_recovered_zero", 2, 100), Column("dead", "dead_in_training", 0),
    Column("silent", "dead", 0),
)  # fmt: skip
LEAKING = (
    Column("leaking: FVU", "leaking_fvu", 4), Column("leaking: ΔCE", "leaking_delta_ce", 4),
    Column("leaking: KL", "leaking_kl", 4),
)  # fmt: skip
Record = dict[str, Any]


def run_of(arguments: argparse.Namespace, beta: float, seed: int) -> Path:
    """Directory of a dictionary."""
    return arguments.work / "runs" / f"beta-{beta:g}-s{seed}"


def configs(arguments: argparse.Namespace, activations: Path) -> dict[Path, TrainConfig]:
    """Settings of every run by its directory."""
    shared = {
        "activations": str(activations), "site": SITE, "sae.d_sae": arguments.d_sae, "sae.k": arguments.k,
        "sae.dead_after": round(0.1 * arguments.tokens), "tokens": arguments.tokens, "batch": arguments.batch,
        "buffer": max(arguments.batch, 131_072), "optimizer.lr": arguments.lr, "shuffle_seed": 0, "device": "cpu",
        "checkpoint_every": arguments.tokens // 3,
    }  # fmt: skip
    return {
        run_of(arguments, beta, seed): load_config(TrainConfig, None, {**shared, **_architecture(beta), "seed": seed})
        for beta in arguments.betas
        for seed in range(arguments.seeds)
    }


def _architecture(beta: float) -> dict[str, Any]:
    return {"sae.preset": "gradient", "sae.affinity.beta": beta} if beta else {"sae.preset": "topk"}


def evaluated(arguments: argparse.Namespace) -> list[Record]:
    """What each dictionary loses, its latents chosen without the gradient and, marked as leaking, with it."""
    keys = [(beta, seed) for beta in arguments.betas for seed in range(arguments.seeds)]
    runs = [run_of(arguments, *key) for key in keys]
    settings = {"runs": runs, "suites": ["fidelity"], "tokens": arguments.eval_tokens, "device": "cpu"}
    reports = evaluate(EvaluateConfig.model_validate(settings))
    return [_record(*key, run, report) for key, run, report in zip(keys, runs, reports, strict=True)]


def _record(beta: float, seed: int, run: Path, report: Any) -> Record:
    assert isinstance(report, FidelityReport)
    numbers = report.metrics.model_dump(mode="json")
    record = {"beta": beta, "seed": seed, "dead_in_training": read_jsonl(RunPaths(run).metrics)[-1]["dead"]}
    record |= {name: numbers[name] for name in ("fvu", "delta_ce", "kl", "loss_recovered_zero", "l0", "dead")}
    # TopK chooses the same with and without a gradient.
    leaking = numbers if report.leaking is None else report.leaking.metrics.model_dump(mode="json")
    return record | {f"leaking_{name}": leaking[name] for name in ("fvu", "delta_ce", "kl", "loss_recovered_zero")}


def steered(arguments: argparse.Namespace, manifest: Manifest) -> list[Record]:
    """A record for each dictionary (and for random directions) and strength."""
    steering = Steering(manifest, SITE, arguments.latents, arguments.contexts, arguments.unit_tokens)
    settings = {name: vars(arguments)[name] for name in ("latents", "contexts", "unit_tokens")}
    wanted = [(beta, seed) for beta in (*arguments.betas, RANDOM) for seed in range(arguments.seeds)]
    records: list[Record] = []
    with track(len(wanted), "steer", unit="dictionaries") as bar:
        for beta, seed in wanted:
            file = arguments.work / "steering" / f"{beta}-s{seed}.json"
            kept = read_json(file) if file.exists() else {}
            if kept.get("settings") != settings:
                run = None if beta == RANDOM else run_of(arguments, float(beta), seed)
                found = steering.of_random(seed) if run is None else steering.of_run(run, seed)
                kept = {"settings": settings, "strengths": found}
                write_json(file, kept)
            records += [{"beta": beta, "seed": seed, "strength": s, **v} for s, v in kept["strengths"].items()]
            bar.advance(1)
    return records


def losses_table(records: Sequence[Record]) -> str:
    """A row for each β: mean ± standard deviation over seeds."""
    columns = (*FREE, *LEAKING)
    rows = []
    for beta in dict.fromkeys(r["beta"] for r in records):
        of = [r for r in records if r["beta"] == beta]
        rows.append([_name(beta), *(spread([r[c.name] for r in of], c.digits, c.factor) for c in columns)])
    return markdown(["β", *(column.title for column in columns)], rows)


def steering_table(records: Sequence[Record]) -> str:
    """A row for each strength and β: quantiles over latents, averaged over seeds."""
    titles = ["strength", "β", "length", *(f"KL p{100 * s:.0f}" for s in SHARES), "|Δlogit| p50", "agreement p50"]
    rows = []
    for strength in dict.fromkeys(r["strength"] for r in records):
        for beta in dict.fromkeys(r["beta"] for r in records if r["strength"] == strength):
            found = [r["quantiles"] for r in records if (r["strength"], r["beta"]) == (strength, beta)]
            middle = SHARES.index(0.5)
            kl = [spread([q["kl"][i] for q in found], 4) for i in range(len(SHARES))]
            rest = [spread([q[name][middle] for q in found], 2) for name in ("largest", "agreement")]
            rows.append([strength, _name(beta), spread([q["norm"][middle] for q in found], 2), *kl, *rest])
    return markdown(titles, rows)


def claims_table(losses: Sequence[Record], steering: Sequence[Record]) -> str:
    """The paper's two claims for each β, pair by pair of seeds with TopK: a verdict where the 95 % interval allows."""
    rows = []
    for beta in dict.fromkeys(r["beta"] for r in losses if r["beta"]):
        for title, name, digits in (("ΔCE lower", "delta_ce", 4), ("leaking ΔCE lower", "leaking_delta_ce", 4)):
            values = {b: {(r["seed"],): r[name] for r in losses if r["beta"] == b} for b in (beta, 0.0)}
            rows.append(_verdict(beta, title, values[beta], values[0.0], digits))
        for strength in dict.fromkeys(r["strength"] for r in steering):
            # The claim is that ours move more, so that TopK's are lower.
            values = {
                b: {
                    (r["seed"],): r["quantiles"]["kl"][SHARES.index(0.5)]
                    for r in steering
                    if (r["beta"], r["strength"]) == (b, strength)
                }
                for b in (beta, 0.0)
            }
            rows.append(_verdict(beta, f"TopK's median KL lower, {strength}", values[0.0], values[beta], 4))
    return markdown(["β", "claim against TopK", "difference", "verdict"], rows)


def _verdict(beta: float, title: str, lower: dict[tuple, float], higher: dict[tuple, float], digits: int) -> list[str]:
    difference = paired(lower, higher)
    if difference is None:
        return [_name(beta), title, "–", "–"]
    return [_name(beta), title, difference.text(digits), difference.verdict()]


def _name(beta: float | str) -> str:
    if isinstance(beta, str):
        return beta
    return f"{beta:g}" if beta else "0 (TopK)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="little of everything")
    parser.add_argument("--activations", type=Path, help="harvested with gradients; left out, a harvest of its own")
    parser.add_argument("--betas", type=float, nargs="+", default=BETAS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--d-sae", type=int, default=2048)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=400_000, help="of each training")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--eval-tokens", type=int, default=30_000)
    parser.add_argument("--latents", type=int, default=64, help="steered in each dictionary")
    parser.add_argument("--contexts", type=int, default=24, help="that each latent is steered in")
    parser.add_argument("--unit-tokens", type=int, default=20_000, help="that largest activations are measured on")
    parser.add_argument("--work", type=Path, help="scratch folder; left out, below build/benchmarks")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/gradient.json")
    arguments = parser.parse_args()
    if arguments.quick:
        parser.set_defaults(**QUICK, json=None)
        arguments = parser.parse_args()
    arguments.work = arguments.work or ROOT / "build/benchmarks" / ("gradient-quick" if arguments.quick else "gradient")

    tokens = round(FRESH * arguments.tokens)
    ours = HarvestConfig(sites=(SITE,), gradients=True, tokens=tokens, device="cpu")
    activations = arguments.activations or harvest(ours, arguments.work / "activations")
    train_all(configs(arguments, activations))
    losses = evaluated(arguments)
    steering = steered(arguments, Manifest.load(activations))
    print("\n\n".join([losses_table(losses), steering_table(steering), claims_table(losses, steering)]))
    if arguments.json is not None:
        kept = ("betas", "seeds", "d_sae", "k", "tokens", "batch", "lr", "eval_tokens", "latents", "contexts")
        settings = {name: vars(arguments)[name] for name in (*kept, "unit_tokens")}
        write_json(arguments.json, {"settings": settings, "losses": losses, "steering": steering})


if __name__ == "__main__":
    main()
