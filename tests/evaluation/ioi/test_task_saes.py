"""Training on a matrix: whole epochs, any architecture, a decoder that stays, and a dictionary like all others."""

from itertools import islice
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

from saelab.activations.source import Origin
from saelab.corpora import CorpusConfig, TokenPolicy
from saelab.dictionaries.artifact import load
from saelab.dictionaries.dictionary import Dictionary
from saelab.evaluation.ioi.config import IoiConfig, TaskSaeConfig
from saelab.evaluation.ioi.task_saes import _batches, train_on, training_of
from saelab.training.config import Preset

ORIGIN = Origin("tiny", None, "", "", "blocks.1.attn.z.head0", (), CorpusConfig(source="ioi"), TokenPolicy())
SIZES = TaskSaeConfig(d_sae=24, k=2, tokens=40_000, batch=256, lr=5e-3)
TASK_PRESETS = [preset for preset in get_args(Preset) if preset != "gradient"]


@pytest.fixture(scope="module")
def x() -> Tensor:
    """Two of sixteen directions at a time, on top of a constant."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(16, 12, generator=generator), dim=1)
    first, second = torch.randint(8, (2, 2000), generator=generator)
    return directions[first] + directions[8 + second] + 0.5


def unexplained(dictionary: Dictionary, x: Tensor) -> float:
    return float((dictionary(x) - x).square().sum() / (x - x.mean(0)).square().sum())


@pytest.mark.parametrize("preset", TASK_PRESETS)
def test_every_architecture_learns(x: Tensor, preset: Preset) -> None:
    dictionary = train_on(x, training_of(preset, SIZES, ORIGIN, seed=0), ORIGIN)
    assert dictionary.config.architecture == preset
    assert dictionary.site == ORIGIN.site
    assert unexplained(dictionary, x) < 0.75  # random rows leave more than 1 where nothing was learnt
    assert dictionary.encode(x).nnz / len(x) < 5


def test_a_frozen_decoder_stays_as_it_begins_and_is_worse(x: Tensor) -> None:
    config = training_of("topk", SIZES, ORIGIN, seed=0)
    frozen, trained = train_on(x, config, ORIGIN, frozen_decoder=True), train_on(x, config, ORIGIN)
    generator = torch.Generator().manual_seed(0)
    first = torch.nn.functional.normalize(torch.randn(24, 12, generator=generator), dim=1)
    torch.testing.assert_close(frozen.W_dec, first)
    assert not torch.allclose(frozen.W_enc, frozen.W_dec)
    assert unexplained(trained, x) < 0.5 * unexplained(frozen, x)


def test_every_epoch_has_every_row_once() -> None:
    rows = torch.arange(10.0)[:, None]
    seen = torch.cat([batch.x for batch in islice(_batches(rows, 4, seed=1), 5)])[:, 0].tolist()
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]


def test_it_is_saved_and_loaded_like_any_other(x: Tensor, tmp_path: Path) -> None:
    dictionary = train_on(x, training_of("gated", SIZES, ORIGIN, seed=0), ORIGIN)
    dictionary.save(tmp_path / "dictionary", x[:8])
    torch.testing.assert_close(load(tmp_path)(x), dictionary(x))


def test_a_list_of_architectures_may_have_commas() -> None:
    assert IoiConfig(train="topk, gated").train == ("topk", "gated")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="gradient can't be trained on prompts alone"):
        IoiConfig(train=("gradient",))
