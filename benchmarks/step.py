"""How fast is a training step? Every allocation, against the encoder product alone.

    python benchmarks/step.py                                   # all sizes; a table, and benchmarks/results/step.json
    python benchmarks/step.py --sizes 6144,32,4096 --profile    # one size, where a step's time goes

One step is `Trainer.step` on activations of a known sparse dictionary (768 wide): everything that `saelab train` does
per batch but reading it. The floor is one product `x @ W_encᵀ + b_enc` into memory that is kept, by MKL or oneDNN,
whichever is faster. Cases take turns, so that a shared machine slows all of them alike: read the ratios. Memory is
each case's peak in a process of its own, above what the imports take.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saelab.activations.batch import ActivationBatch
from saelab.disk import write_json
from saelab.kernels.product import Buffer, affine
from saelab.kernels.scoring import ScoringBackend
from saelab.training.config import TrainConfig
from saelab.training.profile import StageClock
from saelab.training.trainer import Trainer

ROOT = Path(__file__).resolve().parent
D_IN = 768
SIZES = "6144,32,4096 24576,32,4096 24576,64,2048"
BATCHES = 4
DEAD_SHARE = 0.1
INT8, BF16 = "topk, int8 scoring", "topk, bf16 scoring"
CASES: dict[str, dict[str, Any]] = {
    "topk": {"preset": "topk", "aux": {"kind": "none"}},
    "mutual-choice": {"preset": "mutual-choice", "aux": {"kind": "none"}},
    "feature-choice": {"preset": "feature-choice", "aux": {"kind": "none"}},
    "gradient": {"preset": "gradient", "aux": {"kind": "none"}},
    INT8: {"preset": "topk", "aux": {"kind": "none"}},
    BF16: {"preset": "topk", "aux": {"kind": "none"}},
    "topk, 10 % dead, aux_k": {"preset": "topk", "aux": {"kind": "aux_k", "warmup_fraction": 0}},
    "topk, 10 % dead, aux_zipf": {"preset": "topk", "aux": {"kind": "aux_zipf", "warmup_fraction": 0}},
    "matryoshka": {"preset": "matryoshka", "aux": {"kind": "none"}},
}
REFERENCE = "topk, reference backend"
BACKENDS = {REFERENCE: "reference", INT8: "cpu-int8", BF16: "cpu-bf16"}
FLOORS = ("product, MKL", "product, oneDNN")


@dataclass(frozen=True)
class Size:
    d_sae: int
    k: int
    batch: int

    @classmethod
    def read(cls, text: str) -> Size:
        return cls(*map(int, text.split(",")))

    def __str__(self) -> str:
        return f"{self.d_sae},{self.k},{self.batch}"


def activations(size: Size) -> list[ActivationBatch]:
    """Sums of about 32 of 8,192 directions whose frequencies fall off as rank^-0.8, plus noise; E|x|² about 768."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(8192, D_IN, generator=generator), dim=1)
    frequency = (torch.arange(8192) + 50.0) ** -0.8
    batches = []
    for number in range(BATCHES):
        chosen = torch.multinomial(frequency.expand(size.batch, -1), 32, generator=generator)
        strength = 1 + torch.rand(size.batch, 32, generator=generator)
        x = torch.nn.functional.embedding_bag(chosen, directions, per_sample_weights=strength, mode="sum")
        x = 3 * x + 0.3 * torch.randn(x.shape, generator=generator)
        gradient = torch.randn(x.shape, generator=generator) * 1e-3
        tokens = torch.arange(number * size.batch, (number + 1) * size.batch)
        batches.append(ActivationBatch(x, x, gradient, tokens))
    return batches


def new_trainer(case: str, size: Size, sample: ActivationBatch) -> Trainer:
    sae = {**CASES["topk" if case == REFERENCE else case], "d_sae": size.d_sae, "k": size.k}
    config = TrainConfig.model_validate(
        {"sae": sae, "batch": size.batch, "tokens": 10_000 * size.batch, "buffer": 2**20,
         "backend": BACKENDS.get(case, "cpu"), "device": "cpu"}
    )  # fmt: skip
    return Trainer.begin(config, sample)


def stepper(case: str, size: Size, batches: list[ActivationBatch], trainer: Trainer) -> Callable[[], Any]:
    """Takes the next batch. Dead latents are made so: a tenth never wins, but is positive for half of the tokens."""
    dead = torch.arange(size.d_sae) % round(1 / DEAD_SHARE) == 0 if "dead" in case else None
    if dead is not None:
        trainer.weights.W_enc[dead] *= 0.1
    taken = iter(range(10**9))

    def step() -> None:
        if dead is not None:
            trainer.statistics.idle[dead] = 10**12
        trainer.step(batches[next(taken) % len(batches)])

    return step


def floors(x: Tensor, size: Size) -> dict[str, Callable[[], Any]]:
    """The encoder product alone."""
    W, b, buffer = torch.randn(size.d_sae, D_IN), torch.zeros(size.d_sae), Buffer()
    out = buffer.take(size.batch, size.d_sae, x)
    return {
        FLOORS[0]: lambda: torch.addmm(b, x, W.T, out=out),
        FLOORS[1]: lambda: affine(x, W, b, buffer, by_latent=False),
    }


def measure(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """Medians of wall and processor time (ms); one run of each, in turn, `repeats` times after a first one."""
    wall: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 2):
        for name, run in runs.items():
            started = time.perf_counter(), time.process_time()
            run()
            if turn >= 2:
                wall[name].append(1000 * (time.perf_counter() - started[0]))
                cpu[name].append(1000 * (time.process_time() - started[1]))
    return {
        name: {
            "ms": statistics.median(wall[name]),
            "fastest_ms": min(wall[name]),
            "cpu_ms": statistics.median(cpu[name]),
        }
        for name in runs
    }


def bench(size: Size, cases: list[str], repeats: int, profile: bool) -> dict[str, dict[str, Any]]:
    """Every case of one size, interleaved."""
    batches = activations(size)
    runs = floors(batches[0].x, size)
    clocks: dict[str, StageClock] = {}
    trainers: dict[str, Trainer] = {}
    for case in cases:
        trainer = trainers[case] = new_trainer(case, size, batches[0])
        if profile:
            clocks[case] = StageClock(trainer)
        runs[case] = stepper(case, size, batches, trainer)
    results: dict[str, dict[str, Any]] = dict(measure(runs, repeats))
    floor = min(FLOORS, key=lambda name: results[name]["ms"])
    for row in results.values():
        row["over_product"] = row["ms"] / results[floor]["ms"]
        row["cpu_over_product"] = row["cpu_ms"] / min(results[name]["cpu_ms"] for name in FLOORS)
        row["tokens_per_s"] = 1000 * size.batch / row["ms"]
    for case, trainer in trainers.items():
        if isinstance(trainer.backend, ScoringBackend):
            results[case]["certified"] = trainer.backend.certificate.share
            print(f"{case} at {size}: {100 * trainer.backend.certificate.share:.2f} % of rows certified")
    for case, clock in clocks.items():
        results[case]["stages_ms"] = {stage: 1000 * seconds / clock.steps for stage, seconds in clock.seconds.items()}
        print(f"\n{case} at {size}\n{clock.table()}")
    return results


def peak_memory(case: str, size: Size) -> dict[str, float]:
    """MB above the imports, in a process of its own: what is kept (weights, Adam, batches), the peak of two steps."""
    command = [sys.executable, __file__, "--one", case, "--sizes", str(size)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(answer.splitlines()[-1])


def one(case: str, size: Size) -> None:
    """What `peak_memory` asks a process of its own for."""
    base = _peak_mb()
    batches = activations(size)[:2]
    trainer = new_trainer(case, size, batches[0])
    step = stepper(case, size, batches, trainer)
    kept = sum(tensor.numel() * tensor.element_size() for tensor in trainer.state().values())
    data = sum(batch.x.numel() * 8 for batch in batches)  # x and its gradient
    for _ in range(2):
        step()
    print(json.dumps({"peak_mb": _peak_mb() - base, "parameters_mb": kept / 1e6, "data_mb": data / 1e6}))


def _peak_mb() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # where getrusage goes on counting from what the parent process held
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts in bytes


def table(size: Size, results: dict[str, dict[str, Any]]) -> str:
    lines = [
        f"\n(d_in {D_IN}, d_sae {size.d_sae}, k {size.k}, batch {size.batch})",
        f"{'':30}{'ms':>9}{'fastest':>9}{'tokens/s':>10}{'× product':>11}{'CPU ms':>9}{'× product':>11}{'peak MB':>9}",
    ]
    for name, row in results.items():
        memory = f"{row['peak_mb']:9.0f}" if "peak_mb" in row else ""
        lines.append(
            f"{name:30}{row['ms']:9.1f}{row['fastest_ms']:9.1f}{row['tokens_per_s']:10.0f}{row['over_product']:11.3f}"
            f"{row['cpu_ms']:9.1f}{row['cpu_over_product']:11.3f}{memory}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=SIZES.split(), metavar="D_SAE,K,BATCH")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=[*CASES, REFERENCE])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--profile", action="store_true", help="print where a step's time goes")
    parser.add_argument("--memory", action="store_true", help="measure each case's peak in a process of its own")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = [Size.read(text) for text in arguments.sizes]
    if arguments.one:
        one(arguments.one, sizes[0])
        return
    report: dict[str, Any] = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "torch": torch.__version__, "threads": torch.get_num_threads(), "load": os.getloadavg()[0], "sizes": {},
    }  # fmt: skip
    for size in sizes:
        results = bench(size, arguments.cases, arguments.repeats, arguments.profile)
        if arguments.memory:
            for case in arguments.cases:
                results[case] |= peak_memory(case, size)
        report["sizes"][str(size)] = results
        print(table(size, results), flush=True)
    if arguments.json:
        write_json(arguments.json, report)


if __name__ == "__main__":
    main()
