"""What a test sees of a dictionary: vectors, a bias, and codes of the activations at one node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from saelab.dictionaries.dictionary import Dictionary
from saelab.errors import UserError
from saelab.evaluation.ioi.task import Prompts
from saelab.kernels.backend import choose
from saelab.kernels.codes import SparseCodes

Encode = Callable[[Float[Tensor, "n d"], Prompts], SparseCodes]


@dataclass(frozen=True, eq=False)
class Features:
    """`a ≈ bias + Σ_i f_i vectors[i]` at one node, in the model's own units, whatever made the codes f.

    A latent is *active* where its code is above zero; a latent that has a code at all can be edited.

    Attributes:
        name: what tables call it.
        vectors: what one unit of each code adds to the activation.
        encode: codes of activations. Only supervised features look at the prompts (their true labels).
    """

    name: str
    vectors: Float[Tensor, "F d"]
    bias: Float[Tensor, "d"]
    encode: Encode

    @property
    def n_latents(self) -> int:
        return self.vectors.shape[0]

    def reconstruct(self, codes: SparseCodes, latents: Bool[Tensor, "F"] | None = None) -> Float[Tensor, "n d"]:
        """`bias + Σ f_i vectors[i]`, over the given latents alone if there are any given."""
        if latents is not None:
            codes = codes.keep(latents[codes.latents])
        return choose(device=self.vectors.device).decode(codes, self.vectors) + self.bias


def of_dictionary(name: str, dictionary: Dictionary) -> Features:
    """A saelab dictionary, its scale folded into the vectors.

    Raises:
        UserError: a transcoder, which does not write where it reads.
    """
    if dictionary.config.targets:
        raise UserError(f"{name} is a transcoder, but edits need a dictionary that writes where it reads")
    folded = dictionary.folded()
    return Features(name, folded.W_dec, folded.b_dec, lambda x, prompts: folded.encode(x))
