"""The gate of an architecture."""

from __future__ import annotations

from saelab.dictionaries.config import Gated, JumpRelu, Relu
from saelab.training.config import SaeConfig
from saelab.training.gates.budgeted import BudgetedGate
from saelab.training.gates.gate import Gate
from saelab.training.gates.gated import GatedGate
from saelab.training.gates.jumprelu import JumpReluGate
from saelab.training.gates.relu import ReluGate
from saelab.training.initial import Weights
from saelab.training.statistics import LatentStatistics


def gate_of(sae: SaeConfig, weights: Weights, statistics: LatentStatistics) -> Gate:
    """What chooses the matches of a training with these settings."""
    device = weights.W_enc.device
    match sae.allocation:
        case Relu() as choice:
            return ReluGate(choice, sae, device)
        case JumpRelu() as choice:
            return JumpReluGate(choice, sae, weights.W_enc.shape[1], device)
        case Gated() as choice:
            return GatedGate(choice, sae, device)
        case _:
            return BudgetedGate(sae, statistics)
