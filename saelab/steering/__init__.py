"""Turning latents up and down while the model runs, by difference of decodings or along directions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saelab.lazy import exports

if TYPE_CHECKING:
    from saelab.steering.config import LatentEdit as LatentEdit
    from saelab.steering.config import SteerConfig as SteerConfig
    from saelab.steering.edits import add_vector as add_vector
    from saelab.steering.edits import by_difference as by_difference
    from saelab.steering.edits import by_direction as by_direction
    from saelab.steering.effect import Effects as Effects
    from saelab.steering.effect import effects as effects
    from saelab.steering.effect import random_contexts as random_contexts
    from saelab.steering.steered import Continuation as Continuation
    from saelab.steering.steered import Sampling as Sampling
    from saelab.steering.steered import interventions as interventions
    from saelab.steering.steered import largest_activations as largest_activations
    from saelab.steering.steered import side_by_side as side_by_side

__getattr__, __all__ = exports(  # pyright: ignore[reportUnsupportedDunderAll]
    __name__,
    {
        "Continuation": "saelab.steering.steered",
        "Effects": "saelab.steering.effect",
        "LatentEdit": "saelab.steering.config",
        "Sampling": "saelab.steering.steered",
        "SteerConfig": "saelab.steering.config",
        "add_vector": "saelab.steering.edits",
        "by_difference": "saelab.steering.edits",
        "by_direction": "saelab.steering.edits",
        "effects": "saelab.steering.effect",
        "interventions": "saelab.steering.steered",
        "largest_activations": "saelab.steering.steered",
        "random_contexts": "saelab.steering.effect",
        "side_by_side": "saelab.steering.steered",
    },
)
