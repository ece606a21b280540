"""The budgeted gate: k matches per token, spent on the highest affinities under an allocation's constraint."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.dictionaries import affinity
from saelab.dictionaries.allocation import FeatureAllocation, MutualAllocation, TokenAllocation, budget_shares
from saelab.dictionaries.config import ActivationAffinity, FeatureChoice, GradientAffinity, MutualChoice, TokenChoice
from saelab.kernels.codes import SparseCodes
from saelab.kernels.product import Buffer
from saelab.kernels.scoring import ScoringBackend
from saelab.kernels.shared import SharedScoringBackend
from saelab.training.config import SaeConfig
from saelab.training.gates.gate import Flow, GateInput, Inference, Kept
from saelab.training.initial import Weights
from saelab.training.statistics import LatentStatistics


class BudgetedGate:
    """Affinity × allocation: `S = allocation(affinity(z, ∇L), k·B)`, `f = relu(z) · S`. Source: METHODS §1."""

    def __init__(self, sae: SaeConfig, statistics: LatentStatistics) -> None:
        self.sae, self.statistics = sae, statistics
        self.allocation = self._first_allocation()
        self.affinities = Buffer.shared("affinities")

    def extra(self, weights: Weights) -> dict[str, Tensor]:
        return {}

    def temper(self, weights: Weights) -> None:
        """The usual start is right: few matches are kept."""

    def reads_by_latent(self, progress: float) -> bool:
        self._enter_feature_phase(progress)
        return isinstance(self.allocation, FeatureAllocation) and isinstance(self.sae.affinity, ActivationAffinity)

    def open(self, batch: GateInput) -> Kept:
        self._enter_feature_phase(batch.progress)
        if isinstance(batch.backend, ScoringBackend | SharedScoringBackend):
            codes = self._scored(batch, batch.backend)
            return Kept(codes.with_values(codes.values.relu()), codes.values)
        tokens, mesh = batch.tokens.total, batch.exchange.mesh
        scores = affinity.scores(self.sae.affinity, batch.z, batch.gradient, batch.weights.W_dec, self.affinities, mesh)
        codes = self.allocation.select(scores, batch.k, batch.backend, tokens, mesh.latent)
        if scores is batch.z:
            return Kept(codes.with_values(codes.values.relu()), codes.values)
        z = batch.z[codes.row_ids, codes.latents]
        # Affinity and pre-activation have the same sign; which of the two is the activation is an option.
        as_affinity = isinstance(self.sae.affinity, GradientAffinity) and self.sae.affinity.value == "affinity"
        return Kept(codes.with_values((codes.values if as_affinity else z).relu()), z)

    def _scored(self, batch: GateInput, backend: ScoringBackend | SharedScoringBackend) -> SparseCodes:
        """What the allocation takes, without the fp32 product."""
        given = (batch.centred, batch.weights.W_enc, batch.weights.b_enc)
        if isinstance(self.allocation, MutualAllocation):
            return backend.encode_mutual(*given, round(batch.k * batch.tokens.total))
        return backend.encode_token(*given, round(batch.k))

    def backward(self, batch: GateInput, kept: Kept, grad_f: Float[Tensor, "nnz"], grad_x_hat: Tensor) -> Flow:
        fires = kept.z > 0
        slope = torch.where(fires, kept.codes.values / kept.z, 0.0)  # 1, or the constant 1 + β|g|
        if isinstance(self.sae.allocation, FeatureChoice) and self.sae.allocation.straight_through:
            slope = torch.where(fires, slope, 1.0)
        grad_z = grad_f * slope
        return Flow(grad_z, grad_z)

    def inference(self, weights: Weights) -> Inference:
        if isinstance(self.sae.allocation, FeatureChoice):
            return Inference(self.statistics.latent_thresholds())
        if isinstance(self.sae.allocation, MutualChoice):
            threshold = self.statistics.global_threshold()
            return Inference(torch.full((self.sae.d_sae,), threshold, device=weights.W_enc.device))
        return Inference()

    def state(self) -> dict[str, Tensor]:
        if not isinstance(self.allocation, FeatureAllocation):
            return {}
        return {"gate.shares": self.allocation.shares, "gate.carry": self.allocation.carry}

    def restore(self, state: dict[str, Tensor]) -> None:
        if "gate.shares" in state:
            # Budgets are counted on the host. As they were: dividing by their sum once more could change a last bit.
            shares, carry = state["gate.shares"].cpu(), state["gate.carry"].cpu()
            self.allocation = FeatureAllocation(shares)
            self.allocation.shares, self.allocation.carry = shares, carry

    def _first_allocation(self) -> TokenAllocation | MutualAllocation | FeatureAllocation:
        choice = self.sae.allocation
        if isinstance(choice, TokenChoice):
            return TokenAllocation()
        if isinstance(choice, FeatureChoice) and choice.warmup_fraction == 0:
            return self._feature_allocation(choice)
        return MutualAllocation()  # also phase 1 of feature choice: densities settle first

    def _enter_feature_phase(self, progress: float) -> None:
        choice = self.sae.allocation
        if not isinstance(choice, FeatureChoice) or isinstance(self.allocation, FeatureAllocation):
            return
        if progress >= choice.warmup_fraction:
            self.allocation = self._feature_allocation(choice)
            self.statistics.forget_thresholds()

    def _feature_allocation(self, choice: FeatureChoice) -> FeatureAllocation:
        """Budgets of all latents, the same on every rank."""
        return FeatureAllocation(budget_shares(choice, self.statistics.everywhere(self.statistics.densities())))
