"""Activations → dictionary. The trainer reads top to bottom like the algorithm in the papers."""

from typing import TYPE_CHECKING

from saelab.lazy import exports

if TYPE_CHECKING:
    from saelab.training.config import TrainConfig as TrainConfig
    from saelab.training.run import train as train

__getattr__, __all__ = exports(__name__, {"TrainConfig": "saelab.training.config", "train": "saelab.training.run"})
