"""What a backend must offer, and the one place that chooses it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saelab.errors import UserError
from saelab.kernels.codes import SparseCodes

if TYPE_CHECKING:
    from saelab.ranks.mesh import Mesh

BackendName = Literal["auto", "reference", "cpu", "cpu-bf16", "cpu-int8", "triton", "triton-bf16"]


@dataclass(frozen=True)
class AdamStep:
    """One step of Adam (arXiv 1412.6980): its number, counted from 1, and the constants it takes."""

    number: int
    lr: float
    beta1: float
    beta2: float
    epsilon: float
    frozen: Bool[Tensor, ""] | None = None
    """Where it is set nothing moves. The device may know that before the host does."""


class Backend(Protocol):
    """Sparse arithmetic over kept matches. Every backend selects exactly what `reference` selects.

    Ties are broken by rule, not by chance: the lower latent wins within a token (token choice), the lower
    (token, latent) within a batch (mutual choice), the lower token within a latent (feature choice).

    Attributes:
        name: what `saelab doctor` prints and a run records.
    """

    name: str

    def pre_activations(
        self, centred: Float[Tensor, "B d"], W_enc: Float[Tensor, "F d"], b_enc: Float[Tensor, "F"], by_latent: bool
    ) -> Float[Tensor, "B F"]:
        """`centred @ W_encᵀ + b_enc`, exact in the tensors' own precision; the backend's next call may overwrite it.

        Args:
            by_latent: lay every latent's column out contiguously (what `select_feature` reads), else every row.
        """
        ...

    def select_token(self, scores: Float[Tensor, "B F"], k: int) -> SparseCodes:
        """The k largest scores of every row; the codes' values are the scores."""
        ...

    def select_mutual(self, scores: Float[Tensor, "B F"], budget: int) -> SparseCodes:
        """The `budget` largest scores of the whole batch; the codes' values are the scores."""
        ...

    def select_feature(self, scores: Float[Tensor, "B F"], budgets: Int[Tensor, "F"]) -> SparseCodes:
        """The `budgets[i]` largest scores of every latent i (at most B); the codes' values are the scores.

        Budgets may lie on the host whatever the scores' device: a backend has to know their sum there.
        """
        ...

    def select_firing(self, scores: Float[Tensor, "B F"], k: int) -> SparseCodes:
        """Of the k largest scores of every row those above 0; the others are left out, or kept with the value 0."""
        ...

    def starved(self, deficit: Float[Tensor, "F"]) -> Int[Tensor, "n"] | None:
        """The latents that are worth a table of their own as their deficit is above 0, ascending; None: take all.

        Where asking would make the host wait the answer is None.
        """
        ...

    def decode(self, codes: SparseCodes, W_dec: Float[Tensor, "F d"]) -> Float[Tensor, "B d"]:
        """Sum over a row's matches of value · decoder row (no bias)."""
        ...

    def value_gradients(
        self, grad_x_hat: Float[Tensor, "B d"], codes: SparseCodes, W_dec: Float[Tensor, "F d"]
    ) -> Float[Tensor, "nnz"]:
        """Gradient with respect to every kept value: ⟨grad_x_hat[row], W_dec[latent]⟩."""
        ...

    def row_gradients(
        self,
        codes: SparseCodes,
        coefficients: Float[Tensor, "nnz"],
        rows: Float[Tensor, "B d"],
        latents: range | None = None,
    ) -> Float[Tensor, "n d"]:
        """Sum over a latent's matches of coefficient · rows[row]: gradients of W_enc and W_dec.

        Args:
            latents: consecutive latents whose n sums are wanted; left out, all F.
        """
        ...

    def latent_sums(self, codes: SparseCodes, of_matches: Float[Tensor, "nnz"]) -> Float[Tensor, "F"]:
        """Sum of a number per match over each latent's matches: gradients of biases and thresholds."""
        ...

    def passes(self, codes: SparseCodes) -> list[range]:
        """All latents in order, cut into what `row_gradients` and `adam` should take at a time to stay in cache."""
        ...

    def adam(
        self,
        weight: Float[Tensor, "n *d"],
        gradient: Float[Tensor, "n *d"],
        mean: Float[Tensor, "n *d"],
        square: Float[Tensor, "n *d"],
        step: AdamStep,
        unit_rows: bool,
    ) -> None:
        """Move `weight`, `mean` and `square` (Adam's running moments) in place; `gradient` may be overwritten.

        Args:
            unit_rows: rows of `weight` have norm 1 and keep it: the part of the gradient along the row is removed
                first and the row renormalised after (arXiv 2406.04093, appendix A.3).
        """
        ...


def choose(name: BackendName = "auto", device: torch.device | str = "cpu", mesh: Mesh | None = None) -> Backend:
    """The backend called `name` for tensors on `device`; "auto" takes the fastest that runs there.

    Args:
        mesh: ranks that select together, as one process would with the whole batch and dictionary; left out, or with
            one rank in it, everything is here.

    Raises:
        UserError: Triton is asked for where it can't run.
    """
    local = _local(name, device)
    if mesh is None or mesh.world.size == 1:
        return local
    from saelab.kernels.scoring import ScoringBackend
    from saelab.kernels.shared import SharedBackend, SharedScoringBackend

    return SharedScoringBackend(local, mesh) if isinstance(local, ScoringBackend) else SharedBackend(local, mesh)


def _local(name: BackendName, device: torch.device | str) -> Backend:
    from saelab.kernels import reference, scoring, sparse
    from saelab.kernels.triton.availability import obstacle

    asked = name in ("triton", "triton-bf16")
    if asked or (name == "auto" and torch.device(device).type == "cuda"):
        missing = obstacle(device)
        if not missing:
            from saelab.kernels.triton.backend import TritonBackend

            return TritonBackend(half=name == "triton-bf16")
        if asked:
            raise UserError(f"backend: {name} can't run here: {missing}; auto takes what can")
    on_cpu = torch.device(device).type == "cpu"
    if name == "reference" or (name == "auto" and not on_cpu):  # without Triton: slow, but right anywhere
        return reference.ReferenceBackend()
    if not on_cpu:
        raise UserError(f"backend: {name} runs on the CPU, not on {device}; auto takes what can")
    if name in ("cpu-bf16", "cpu-int8"):
        return scoring.ScoringBackend("bf16" if name == "cpu-bf16" else "int8")
    return sparse.SparseBackend()
