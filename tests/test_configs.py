"""Every shipped config file is one that `saelab train` takes, as a whole and with each architecture."""

from pathlib import Path
from typing import get_args

import pytest

from saelab.config import read_settings
from saelab.training.config import Preset, TrainConfig
from saelab.training.grid import Point, expand
from saelab.training.passes import shared_passes

FOLDER = Path(__file__).parent.parent / "configs"
CONFIGS = sorted(path for path in FOLDER.rglob("*.yaml") if path.parent != FOLDER / "harvest")
PRESETS: tuple[Preset, ...] = get_args(Preset)


def points(path: Path, **overrides: object) -> list[Point[TrainConfig]]:
    return expand(TrainConfig, read_settings(path, overrides), str(path))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_config_is_valid_with_every_preset(path: Path) -> None:
    for preset in PRESETS:
        for point in points(path, **{"sae.preset": preset}):
            assert point.config.sae.architecture == preset
            assert point.config.steps > 100


@pytest.mark.parametrize(
    ("name", "runs", "first"),
    [("demo-grid", len(PRESETS), "topk"), ("gpt2-small-grid", 8, "blocks.7.resid_post-topk")],
)
def test_a_grid_is_trained_on_one_pass(name: str, runs: int, first: str) -> None:
    (path,) = [path for path in CONFIGS if path.stem == name]
    found = points(path)
    assert (len(found), found[0].name) == (runs, first)
    assert len(shared_passes(found)) == 1


def test_the_grid_of_gpt2_differs_from_the_single_config_in_nothing_else() -> None:
    (single,) = points(FOLDER / "gpt2-small.yaml")
    alone = points(FOLDER / "gpt2-small-grid.yaml")[0].config
    assert alone == single.config.model_copy(update={"buffer": alone.buffer})
