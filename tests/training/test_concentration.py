"""The early sign of a collapse: matches on few latents or few tokens."""

from pathlib import Path

import pytest
import torch

from saelab.activations.batch import ActivationBatch
from saelab.config import load_config
from saelab.disk import RunPaths, read_jsonl
from saelab.kernels.codes import SparseCodes
from saelab.training.concentration import Concentration, collapse, effective
from saelab.training.config import TrainConfig
from saelab.training.log import MetricsLog
from saelab.training.trainer import Trainer


def test_effective_numbers_by_hand() -> None:
    assert float(effective(torch.tensor([5.0, 5.0, 0.0, 5.0]))) == pytest.approx(3)
    assert float(effective(torch.tensor([3.0, 1.0]))) == pytest.approx(16 / 10)
    assert float(effective(torch.zeros(4))) == 0


def test_concentration_counts_what_fires() -> None:
    values = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 3.0], [1.0, 0.0, 0.0]])
    kept = SparseCodes.from_mask(values, torch.tensor([[1, 1, 1], [0, 0, 1], [1, 0, 0]]).bool())
    seen = Concentration.of(kept, kept.fired())  # the match of value 0 does not count
    assert float(seen.active) == 4
    assert float(seen.latents) == pytest.approx(16 / 8)  # counts 2, 0, 2
    assert float(seen.tokens) == pytest.approx(16 / 6)  # counts 2, 1, 1


def test_what_counts_as_collapse() -> None:
    assert collapse(latents=400, tokens=1800, k=16, d_sae=2048, batch=2048) is None
    assert "about 20 of 2048 latents" in (collapse(20, 1800, 16, 2048, 2048) or "")
    assert "about 100 of 2048 tokens" in (collapse(400, 100, 16, 2048, 2048) or "")
    assert collapse(latents=40, tokens=1800, k=16, d_sae=64, batch=2048) is None  # a small dictionary can't spread


def test_a_collapsing_run_says_so_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A few tokens a hundred times as long as all others take every match of the batch (attention sinks left in)."""
    config = load_config(
        TrainConfig, None,
        {"sae.preset": "mutual-choice", "sae.d_sae": 256, "sae.k": 2, "tokens": 256 * 40, "batch": 256, "log_every": 4},
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)

    def batch() -> ActivationBatch:
        x = torch.randn(256, 16, generator=generator)
        x[:8] *= 100
        return ActivationBatch(x, x, None, torch.arange(256))

    trainer, log = Trainer.begin(config, batch()), MetricsLog(RunPaths(tmp_path))
    while trainer.done < 20:
        log.add(trainer.step(batch()))
        if trainer.done % 4 == 0:
            log.write(trainer)
    said = capsys.readouterr().err
    assert said.count("take nearly all matches") == 1
    line = read_jsonl(tmp_path / "metrics.jsonl")[-1]
    assert line["tokens_in_use"] < 20
    assert line["zipf"]["s"] > 0
    assert line["zipf"]["s_error"] >= 0
