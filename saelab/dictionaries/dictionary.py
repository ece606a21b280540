"""A dictionary: weights, and how a token alone is encoded."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.dictionaries.allocation import GroupAllocation
from saelab.dictionaries.config import DictionaryConfig, GroupChoice
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
    A transcoder (`config.targets`) reconstructs other sites: its input is not centred (`z = W_enc s·x + b_enc`), and
    each target has a scale of its own.
    A supervised dictionary (rule "group") says which value each attribute has: f = 1 at the best latent of each group.

    Attributes:
        W_enc: `[F, d]`, one contiguous row per latent.  W_dec: `[F, d_out]`, likewise.
        b_enc: `[F]`.  b_dec: `[d_out]`.
        threshold: `[F]` fp32 in pre-activation units when the rule is "threshold", else `[0]`.
        gain, shift: `[F]` where a gate decides and `f = relu(gain · z + shift)` (Gated, arXiv 2404.16014), else `[0]`.
    """

    W_enc: Float[Tensor, "F d"]
    W_dec: Float[Tensor, "F d_out"]
    b_enc: Float[Tensor, "F"]
    b_dec: Float[Tensor, "d_out"]
    threshold: Float[Tensor, "..."]
    config: DictionaryConfig
    gain: Float[Tensor, "..."] = field(default_factory=lambda: torch.empty(0))
    shift: Float[Tensor, "..."] = field(default_factory=lambda: torch.empty(0))

    @property
    def d_in(self) -> int:
        return self.config.d_in

    @property
    def d_out(self) -> int:
        return self.config.d_out

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
        centred = scaled if self.config.targets else scaled - self.b_dec
        return torch.nn.functional.linear(centred, self.W_enc, self.b_enc)

    def encode(self, x: Float[Tensor, "*batch d"]) -> SparseCodes:
        """Codes of activations in model units; only latents that fire (value > 0) are in them."""
        flat = x.reshape(-1, x.shape[-1])
        backend = choose(device=self.W_enc.device)
        rows = max(1, TILE_ELEMENTS // self.d_sae)
        parts = [self._encode_tile(tile, backend) for tile in flat.split(rows)] if len(flat) else []
        codes = concatenate(parts) if parts else self._encode_tile(flat, backend)
        return codes.reshape(*x.shape[:-1])

    def _encode_tile(self, x: Float[Tensor, "B d"], backend: Backend) -> SparseCodes:
        z = self.pre_activations(x)
        if self.config.rule == "topk":
            return backend.select_token(z, self.config.k).positive()
        if isinstance(self.config.allocation, GroupChoice):
            chosen = GroupAllocation(self.config.allocation.sizes).select(z)
            return chosen.with_values(torch.ones_like(chosen.values))
        codes = SparseCodes.from_mask(z, z > self.threshold.to(z.dtype).clamp(min=0))
        if not self.gain.numel():
            return codes
        magnitude = self.gain[codes.latents] * codes.values + self.shift[codes.latents]
        return codes.with_values(magnitude).positive()

    def decode(self, codes: SparseCodes) -> Float[Tensor, "*batch d_out"]:
        """Reconstruction in model units; of several targets, one behind the other."""
        x_hat = choose(device=self.W_dec.device).decode(codes, self.W_dec) + self.b_dec
        return (x_hat / self.output_scale).reshape(*codes.shape, self.d_out)

    def __call__(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d_out"]:
        """`decode(encode(x))`."""
        return self.decode(self.encode(x))

    def decoder_directions(self, latents: Int[Tensor, "n"] | None = None) -> Float[Tensor, "n d_out"]:
        """What one unit of each code adds to the activation, in model units; of some latents, else of all."""
        rows = self.W_dec if latents is None else self.W_dec[latents.to(self.W_dec.device)]
        return rows / self.output_scale

    @property
    def output_scale(self) -> Float[Tensor, "d_out"] | float:
        """What reconstructions are multiplied by inside."""
        if not self.config.targets:
            return self.config.scale
        each = [self.b_dec.new_full((target.width,), target.scale) for target in self.config.targets]
        return torch.cat(each)

    def folded(self) -> Dictionary:
        """The same function with scale 1: codes and thresholds unchanged, the factor inside the weights."""
        s, out = self.config.scale, self.output_scale
        targets = tuple(target.model_copy(update={"scale": 1.0}) for target in self.config.targets)
        return replace(
            self, W_enc=self.W_enc * s, W_dec=self.W_dec / out, b_dec=self.b_dec / out,
            config=self.config.model_copy(update={"scale": 1.0, "targets": targets}),
        )  # fmt: skip

    def to(self, target: torch.device | str | torch.dtype) -> Dictionary:
        """On another device or in another floating dtype (thresholds stay fp32)."""
        names = ("W_enc", "W_dec", "b_enc", "b_dec", "gain", "shift")
        moved = {name: getattr(self, name).to(target) for name in names}
        threshold = self.threshold if isinstance(target, torch.dtype) else self.threshold.to(target)
        return replace(self, threshold=threshold, **moved)

    def save(self, path: Path, golden: Float[Tensor, "n d"]) -> None:
        """Write `dictionary/`; `golden` are a few real inputs whose codes are stored and checked at every load."""
        from saelab.dictionaries import artifact

        artifact.save(self, path, golden)
