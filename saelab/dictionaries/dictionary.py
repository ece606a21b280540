"""A dictionary: weights, and how a token alone is encoded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.dictionaries.config import DictionaryConfig
from saelab.kernels.backend import Backend, choose
from saelab.kernels.codes import SparseCodes, concatenate

if TYPE_CHECKING:
    from pathlib import Path

TILE_ELEMENTS = 2**25  # pre-activations held at once while encoding: 128 MB in fp32


@dataclass(frozen=True, eq=False)
class Dictionary:
    """A sparse autoencoder at rest: `z = W_enc (s·x − b_dec) + b_enc`, keep by rule, `x_hat = (W_decᵀ f + b_dec) / s`.

    `s` is `config.scale`; everything public takes and gives activations in the model's own units.
    One token is encoded the same whatever batch it comes in, and never sees its loss gradient.

    Attributes:
        W_enc, W_dec: `[F, d]`, one contiguous row per latent.
        b_enc: `[F]`.  b_dec: `[d]`.
        threshold: `[F]` fp32 in pre-activation units when the rule is "threshold", else `[0]`.
    """

    W_enc: Float[Tensor, "F d"]
    W_dec: Float[Tensor, "F d"]
    b_enc: Float[Tensor, "F"]
    b_dec: Float[Tensor, "d"]
    threshold: Float[Tensor, "..."]
    config: DictionaryConfig

    @property
    def d_in(self) -> int:
        return self.config.d_in

    @property
    def d_sae(self) -> int:
        return self.config.d_sae

    @property
    def site(self) -> str:
        return self.config.site

    @property
    def model_name(self) -> str:
        return self.config.model

    def pre_activations(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch F"]:
        """z, before any selection; dense, so mind its size."""
        scaled = x.to(self.W_enc) * self.config.scale
        return torch.nn.functional.linear(scaled - self.b_dec, self.W_enc, self.b_enc)

    def encode(self, x: Float[Tensor, "*batch d"]) -> SparseCodes:
        """Codes of activations in model units; only latents that fire (value > 0) are in them."""
        flat = x.reshape(-1, x.shape[-1])
        backend = choose()
        rows = max(1, TILE_ELEMENTS // self.d_sae)
        parts = [self._encode_tile(tile, backend) for tile in flat.split(rows)] if len(flat) else []
        codes = concatenate(parts) if parts else self._encode_tile(flat, backend)
        return codes.reshape(*x.shape[:-1])

    def _encode_tile(self, x: Float[Tensor, "B d"], backend: Backend) -> SparseCodes:
        z = self.pre_activations(x)
        if self.config.rule == "topk":
            return backend.select_token(z, self.config.k).positive()
        return SparseCodes.from_mask(z, z > self.threshold.to(z.dtype).clamp(min=0))

    def decode(self, codes: SparseCodes) -> Float[Tensor, "*batch d"]:
        """Reconstruction in model units."""
        x_hat = choose().decode(codes, self.W_dec) + self.b_dec
        return (x_hat / self.config.scale).reshape(*codes.shape, self.d_in)

    def __call__(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """`decode(encode(x))`."""
        return self.decode(self.encode(x))

    def decoder_directions(self) -> Float[Tensor, "F d"]:
        """What one unit of each code adds to the activation, in model units."""
        return self.W_dec / self.config.scale

    def folded(self) -> Dictionary:
        """The same function with scale 1: codes and thresholds unchanged, the factor inside the weights."""
        s = self.config.scale
        return replace(
            self, W_enc=self.W_enc * s, W_dec=self.W_dec / s, b_dec=self.b_dec / s,
            config=self.config.model_copy(update={"scale": 1.0}),
        )  # fmt: skip

    def to(self, target: torch.device | str | torch.dtype) -> Dictionary:
        """On another device or in another floating dtype (thresholds stay fp32)."""
        moved = {name: getattr(self, name).to(target) for name in ("W_enc", "W_dec", "b_enc", "b_dec")}
        threshold = self.threshold if isinstance(target, torch.dtype) else self.threshold.to(target)
        return replace(self, threshold=threshold, **moved)

    def save(self, path: Path, golden: Float[Tensor, "n d"]) -> None:
        """Write `dictionary/`; `golden` are a few real inputs whose codes are stored and checked at every load."""
        from saelab.dictionaries import artifact

        artifact.save(self, path, golden)
