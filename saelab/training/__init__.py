"""Activations → dictionary. The trainer reads top to bottom like the algorithm in the papers."""

from typing import TYPE_CHECKING

from saelab.lazy import exports

if TYPE_CHECKING:
    from saelab.training.config import TrainConfig as TrainConfig
    from saelab.training.sweep import train as train
    from saelab.training.sweep import train_all as train_all

__getattr__, __all__ = exports(
    __name__,
    {
        "TrainConfig": "saelab.training.config",
        "train": "saelab.training.sweep",
        "train_all": "saelab.training.sweep",
    },
)
