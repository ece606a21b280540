"""What a backend must offer, and the one place that chooses it."""

from __future__ import annotations

from typing import Literal, Protocol

from jaxtyping import Float, Int
from torch import Tensor

from saelab.kernels.codes import SparseCodes

BackendName = Literal["auto", "reference", "cpu"]


class Backend(Protocol):
    """Sparse arithmetic over kept matches. Every backend selects exactly what `reference` selects.

    Ties are broken by rule, not by chance: the lower latent wins within a token (token choice), the lower
    (token, latent) within a batch (mutual choice), the lower token within a latent (feature choice).
    """

    name: str

    def select_token(self, scores: Float[Tensor, "B F"], k: int) -> SparseCodes:
        """The k largest scores of every row; the codes' values are the scores."""
        ...

    def select_mutual(self, scores: Float[Tensor, "B F"], budget: int) -> SparseCodes:
        """The `budget` largest scores of the whole batch; the codes' values are the scores."""
        ...

    def select_feature(self, scores: Float[Tensor, "B F"], budgets: Int[Tensor, "F"]) -> SparseCodes:
        """The `budgets[i]` largest scores of every latent i (at most B); the codes' values are the scores."""
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
        self, codes: SparseCodes, coefficients: Float[Tensor, "nnz"], rows: Float[Tensor, "B d"]
    ) -> Float[Tensor, "F d"]:
        """Sum over a latent's matches of coefficient · rows[row]: gradients of W_enc and W_dec."""
        ...


def choose(name: BackendName = "auto") -> Backend:
    """The backend called `name`; "auto" takes the fastest that runs everywhere tensors may lie."""
    from saelab.kernels import reference, sparse

    return reference.ReferenceBackend() if name == "reference" else sparse.SparseBackend()
