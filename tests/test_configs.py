"""Every shipped config file is one that `saelab train` takes."""

from pathlib import Path

import pytest

from saelab.config import load_config
from saelab.training.config import TrainConfig

CONFIGS = sorted((Path(__file__).parent.parent / "configs").rglob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_config_is_valid_with_every_preset(path: Path) -> None:
    for preset in ("topk", "mutual-choice", "feature-choice", "gradient"):
        config = load_config(TrainConfig, path, {"sae.preset": preset})
        assert config.sae.architecture == preset
        assert config.steps > 100
