"""Trainings of every architecture on a mesh, beside one process: small, uneven, and with starved latents."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saelab.activations.batch import ActivationBatch
from saelab.config import load_config
from saelab.disk.tensors import read_tensors, write_tensors
from saelab.disk.together import begin_file, write_rows
from saelab.ranks import Ranks
from saelab.ranks.mesh import Mesh, meshed
from saelab.training.config import TrainConfig
from saelab.training.gates.gate import GateInput, Kept
from saelab.training.trainer import Trainer

B, D, F, K, STEPS = 13, 10, 70, 2, 50  # B and F leave rests for 2, 3 and 4 ranks
WIDTHS = (3, 5)  # of a transcoder's two targets
Case = dict[str, Any]

ARCHITECTURES: dict[str, Case] = {
    "topk": {"sae.k_warmup.start": 5, "sae.k_warmup.fraction": 0.5},
    "mutual": {"sae.preset": "mutual-choice", "sae.k_warmup.start": 5, "sae.k_warmup.fraction": 0.5},
    "feature, uniform": {"sae.preset": "feature-choice", "sae.allocation.budgets": "uniform"},
    "feature, zipf": {"sae.preset": "feature-choice"},
    "gradient × token": {"sae.preset": "gradient"},
    "gradient × mutual": {"sae.preset": "gradient", "sae.allocation.kind": "mutual", "sae.affinity.value": "affinity"},
    "gradient × feature": {
        "sae.preset": "gradient", "sae.allocation.kind": "feature", "sae.affinity.normalise": "none",
    },
    "matryoshka": {"sae.preset": "matryoshka"},
    "relu": {"sae.preset": "relu", "sae.dead_after": B // 2},
    "jumprelu": {"sae.preset": "jumprelu", "sae.allocation.threshold": 0.7, "sae.dead_after": B // 2},
    "gated": {"sae.preset": "gated", "sae.allocation.penalty.coefficient": 60.0, "sae.dead_after": B // 2},
    "transcoder": {"sae.preset": "mutual-choice", "target": ["blocks.0.mlp_out", "blocks.1.mlp_out"]},
}  # fmt: skip
AUXILIARY: dict[str, Case] = {
    "none": {"sae.aux.kind": "none"},
    "aux_k": {"sae.aux.kind": "aux_k", "sae.aux.k_aux": 4, "sae.aux.stride": 5, "sae.aux.warmup_fraction": 0.2},
    "aux_zipf": {"sae.aux.kind": "aux_zipf", "sae.aux.k_aux": 7, "sae.aux.stride": 2, "sae.aux.fit_every": 7},
}


def case_of(name: str) -> TrainConfig:
    """Settings of `"gradient × token + aux_k"`; the rate, about 3e-3, comes from F."""
    architecture, _, auxiliary = name.rpartition(" + ")
    return load_config(
        TrainConfig, None,
        {"sae.d_sae": F, "sae.k": K, "sae.dead_after": 5 * B, "tokens": STEPS * B, "batch": B}
        | AUXILIARY[auxiliary] | ARCHITECTURES[architecture],
    )  # fmt: skip


def every_case() -> list[str]:
    return [f"{architecture} + {auxiliary}" for architecture in ARCHITECTURES for auxiliary in AUXILIARY]


def batches(name: str, dtype: torch.dtype) -> list[ActivationBatch]:
    """A sample and a batch for each step: a few directions, in some tokens, and noise."""
    generator = torch.Generator().manual_seed(len(name))

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    directions, read = random(25, D), random(D, sum(WIDTHS))
    found = []
    for _ in range(STEPS + 1):
        x = (random(B, 25).relu() * (random(B, 25) > 1)) @ directions + 0.3 * random(B, D)
        target = (x @ read).tanh() if name.startswith("transcoder") else x
        x, target, gradient = x.to(dtype), target.to(dtype), random(B, D).to(dtype)
        found.append(ActivationBatch(x, x if name[:5] != "trans" else target, gradient, torch.arange(B)))
    return found


class Course:
    """One training, step by step: its losses, and which (step, token, latent) it kept."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.losses: list[Tensor] = []
        self.kept: list[Tensor] = []
        inner: Callable[[GateInput], Kept] = trainer.gate.open

        def watched(batch: GateInput) -> Kept:
            kept = inner(batch)
            tokens = kept.codes.row_ids + (trainer.done * B + (batch.tokens.own.start or 0))
            self.kept.append(tokens * F + kept.codes.latents + trainer.shard.start)
            return kept

        trainer.gate.open = watched

    def go(self, seen: list[ActivationBatch]) -> None:
        for batch in seen:
            result = self.trainer.step(batch)
            numbers = (
                result.squared_error, result.squared_deviation, result.penalty, result.aux_loss, *result.concentration,
            )  # fmt: skip
            self.losses.append(torch.stack([torch.as_tensor(number, dtype=torch.float64) for number in numbers]))

    def written(self) -> dict[str, Tensor]:
        return {"losses": torch.stack(self.losses), "kept": torch.cat(self.kept)}


def alone(name: str, dtype: torch.dtype, steps: int = STEPS) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """One process: the course and the last state."""
    sample, *rest = batches(name, dtype)
    course = Course(Trainer.begin(case_of(name), sample, WIDTHS if name.startswith("transcoder") else ()))
    course.go(rest[:steps])
    return course.written(), course.trainer.state()


def together(
    ranks: Ranks,
    folder: Path,
    data: int,
    latent: int,
    names: list[str],
    dtype: torch.dtype,
    sharded: bool | None,
    steps: int = STEPS,
) -> str:
    """The same on a mesh, into files that one checkpoint's file would be."""
    with meshed(ranks, data, latent) as mesh:
        for name in names:
            sample, *rest = batches(name, dtype)
            widths = WIDTHS if name.startswith("transcoder") else ()
            course = Course(Trainer.begin(case_of(name), sample, widths, mesh, sharded))
            course.go(rest[:steps])
            write_tensors(folder / f"{name}.{ranks.rank}", course.written())
            save(course.trainer, folder / name, mesh)
        return str(dict(mesh.received))


def save(trainer: Trainer, path: Path, mesh: Mesh) -> None:
    """All ranks' pieces, in one file."""
    pieces = trainer.pieces()
    if mesh.ranks.first:
        begin_file(path, pieces)
    mesh.ranks.gather("begun")
    write_rows(path, pieces)
    mesh.ranks.gather("written")


def worst(found: dict[str, Tensor], expected: dict[str, Tensor]) -> tuple[float, str]:
    """The largest difference of any tensor, in units of its own largest number, and whose it is."""
    assert found.keys() == expected.keys()
    differences = []
    for name, tensor in expected.items():
        assert found[name].shape == tensor.shape, name
        assert found[name].dtype == tensor.dtype, name
        if tensor.numel():
            apart = (found[name].double() - tensor.double()).abs().max() / tensor.double().abs().max().clamp(min=1e-30)
            differences.append((float(apart), name))
    return max(differences)


def found_together(folder: Path, name: str, size: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the ranks of one mesh wrote: the course that they agree on, and the state."""
    courses = [read_tensors(folder / f"{name}.{rank}") for rank in range(size)]
    for course in courses[1:]:
        assert torch.equal(course["losses"], courses[0]["losses"]), "all ranks know the same losses"
    kept = torch.cat([course["kept"] for course in courses]).sort().values
    return {"losses": courses[0]["losses"], "kept": kept}, read_tensors(folder / name)
