"""Which architecture finds the features, where they are known? Recovery on synthetic truth, several seeds.

    OMP_NUM_THREADS=1 python benchmarks/truth.py                  # 13 architectures × 5 seeds, about 12 minutes
    OMP_NUM_THREADS=1 python benchmarks/truth.py --quick          # a look: 2 seeds, few tokens

Every dictionary of a seed is trained on the same tokens in the same order, from the same first weights, at the same
mean L0 (k = the truth's mean number of active features; penalties are steered to it), and is held against the same
held-out tokens. A seed changes all of it: truth, tokens, weights.

Not here: gradient SAEs (there is no language model whose loss could have a gradient; an invented ∇L would only
measure the invention), and batch-topk (it is mutual-choice by another name).

A run that was interrupted goes on with the first architecture that has no line in the JSON-lines file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.tables import Column, markdown, spread  # noqa: E402
from saelab.activations.batch import ActivationBatch  # noqa: E402
from saelab.config import load_config  # noqa: E402
from saelab.disk import append_jsonl, read_jsonl, write_json  # noqa: E402
from saelab.evaluation.truth.config import TruthConfig  # noqa: E402
from saelab.evaluation.truth.recovery import recovery  # noqa: E402
from saelab.evaluation.truth.source import TruthPass  # noqa: E402
from saelab.evaluation.truth.synthetic import Truth  # noqa: E402
from saelab.progress import track  # noqa: E402
from saelab.training.config import TrainConfig  # noqa: E402
from saelab.training.finish import finished_dictionary  # noqa: E402
from saelab.training.run import CHECK_BATCHES, keeping_its_budget  # noqa: E402
from saelab.training.trainer import Trainer  # noqa: E402

UNTRAINED = "untrained"
AUXILIARIES = ("none", "aux_k", "aux_zipf")
ARCHITECTURES = (
    UNTRAINED,
    *(f"{preset} {aux}" for preset in ("topk", "mutual-choice", "feature-choice") for aux in AUXILIARIES),
    "matryoshka aux_k", "relu none", "jumprelu none", "gated none",
)  # fmt: skip
WARMED = {"sae.k_warmup.fraction": 0.5}  # of a name that ends in "k-warmup": from four budgets down to one
SAMPLE_TOKENS = 8192
COLUMNS = (
    Column("max cosine", "max_cosine"), Column("matched", "matched_cosine"),
    Column("found %", "recovered", 1, 100), Column("found, rarest 30 % %", "recovered_rare", 1, 100),
    Column("F1", "f1"), Column("F1, rarest 30 %", "f1_rare"), Column("absorbed %", "absorbed", 1, 100),
    Column("missed alone %", "missed_alone", 1, 100), Column("FVU", "fvu"), Column("L0", "l0", 2),
    Column("dead", "dead", 0),
)  # fmt: skip


def train_config(architecture: str, seed: int, arguments: argparse.Namespace) -> TrainConfig:
    """Settings of one dictionary; the untrained one is a TopK that takes no step."""
    preset, aux, *warmed = (architecture + " none").split()[: 2 + architecture.endswith("k-warmup")]
    k = round(arguments.truth.active)
    overrides = ({**WARMED, "sae.k_warmup.start": 4 * k} if warmed else {}) | {
        "sae.preset": preset.replace(UNTRAINED, "topk"), "sae.aux.kind": aux, "sae.d_sae": arguments.d_sae,
        "sae.k": k, "sae.dead_after": arguments.tokens // 10, "tokens": arguments.tokens,
        "batch": arguments.batch, "buffer": arguments.batch, "optimizer.lr": arguments.lr, "seed": seed,
    }  # fmt: skip
    return load_config(TrainConfig, None, overrides)


def train_and_judge(
    architecture: str, config: TrainConfig, source: TruthPass, batches: Sequence[ActivationBatch], held_out: int
) -> dict[str, Any]:
    """Train on all but the last `CHECK_BATCHES` of `batches`; what the dictionary recovers of the truth."""
    started = time.process_time()
    trainer = Trainer.begin(config, source.sample(SAMPLE_TOKENS)[0])
    steps = 0 if architecture == UNTRAINED else config.steps
    for batch in batches[:steps]:
        trainer.step(batch)
    fresh = [batch.x for batch in batches[config.steps :]]
    dictionary = keeping_its_budget(finished_dictionary(trainer, source.origin(0)), fresh, architecture)
    trained = time.process_time()
    found = asdict(recovery(dictionary, source.truth, held_out))
    rare = {f"{name}_rare": _mean(found[f"{name}_by_frequency"][-3:]) for name in ("recovered", "f1")}
    return {**found, **rare, "train_cpu_s": round(trained - started, 2)}


def cells(arguments: argparse.Namespace, done: Sequence[dict[str, Any]]) -> Iterator[tuple[int, list[str]]]:
    """Seeds, and the architectures that each still lacks."""
    finished = {(record["architecture"], record["seed"]) for record in done}
    for seed in range(arguments.seeds):
        if missing := [name for name in arguments.only if (name, seed) not in finished]:
            yield seed, missing


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the records have in common."""
    return {
        "truth": arguments.truth.model_dump(mode="json", exclude={"seed"}), "held_out": arguments.held_out,
        "tokens": arguments.tokens, "batch": arguments.batch,
        "d_sae": arguments.d_sae, "lr": arguments.lr,
    }  # fmt: skip


def run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All records, those of earlier calls with the same settings included."""
    trainings = [train_config(name, 0, arguments).model_dump(mode="json") for name in arguments.only]
    deciding = json.dumps([settings(arguments), trainings], sort_keys=True)
    digest = hashlib.sha256(deciding.encode()).hexdigest()[:12]  # changed settings, defaults too, begin anew
    arguments.lines.parent.mkdir(parents=True, exist_ok=True)
    records = [record for record in read_jsonl(arguments.lines) if record["settings"] == digest]
    total = arguments.seeds * len(arguments.only)
    left = sum(len(missing) for _, missing in cells(arguments, records))
    with track(total, "truth", unit="dictionaries", done=total - left) as bar:
        for seed, missing in list(cells(arguments, records)):
            source = TruthPass(Truth.make(arguments.truth.model_copy(update={"seed": seed})))
            steps = arguments.tokens // arguments.batch
            batches = [batch for (batch,) in islice(source.batches(arguments.batch, seed), steps + CHECK_BATCHES)]
            for architecture in missing:
                config = train_config(architecture, seed, arguments)
                found = train_and_judge(architecture, config, source, batches, arguments.held_out)
                record = {"settings": digest, "architecture": architecture, "seed": seed, **found}
                append_jsonl(arguments.lines, record)
                records.append(record)
                bar.advance(1, f"{architecture}, seed {seed}: found {100 * found['recovered']:.0f} %")
    return records


def report(records: Sequence[dict[str, Any]], architectures: Sequence[str]) -> str:
    """Mean ± standard deviation over seeds, and F1 by tenths of the features."""
    of = {name: [record for record in records if record["architecture"] == name] for name in architectures}
    rows = [[name, *(spread([r[c.name] for r in of[name]], c.digits, c.factor) for c in COLUMNS)] for name in of]
    tenths = [[name, *(spread([r["f1_by_frequency"][n] for r in of[name]], 2) for n in range(10))] for name in of]
    return "\n\n".join(
        [
            markdown(["", *(column.title for column in COLUMNS)], rows),
            "F1 of firing by tenths of the features, the most frequent first:",
            markdown(["", *(str(n + 1) for n in range(10))], tenths),
        ]
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", type=lambda names: tuple(names.split(",")), default=ARCHITECTURES,
        help='some rows, such as "topk aux_zipf,mutual-choice aux_zipf k-warmup"',
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=600_000, help="of one training")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--d-sae", type=int, default=512)
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--held-out", type=int, default=65_536, help="tokens on which recovery is measured")
    parser.add_argument("--quick", action="store_true", help="2 seeds, a tenth of the tokens: to see that it works")
    parser.add_argument("--lines", type=Path, default=ROOT / "build/benchmarks/truth.jsonl", help="finished records")
    parser.add_argument("--json", type=Path, help="write settings and records to this file when all are there")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.tokens, arguments.held_out = 2, arguments.tokens // 10, 8192
    arguments.truth = TruthConfig()
    records = run(arguments)
    print(report(records, arguments.only))
    if arguments.json:
        write_json(arguments.json, {"settings": settings(arguments), "records": records})


if __name__ == "__main__":
    main()
