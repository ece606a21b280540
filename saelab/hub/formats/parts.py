"""From another tool's weights to a Dictionary: one way of centring, one precision, one configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import saelab
from saelab.dictionaries.config import (
    ActivationAffinity,
    Allocation,
    DictionaryConfig,
    Gated,
    JumpRelu,
    MutualChoice,
    Relu,
    Target,
    TokenChoice,
)
from saelab.dictionaries.dictionary import Dictionary
from saelab.errors import UserError
from saelab.hub.formats.places import unsaid
from saelab.models.site import UNKNOWN

STAND_IN_K = 32  # where no file says how many latents fire

_NAMES: dict[type, str] = {
    TokenChoice: "topk", MutualChoice: "mutual-choice", Relu: "relu", JumpRelu: "jumprelu", Gated: "gated"
}  # fmt: skip


@dataclass(frozen=True)
class Origin:
    """What files say about where a dictionary belongs and how it was trained; empty where they do not."""

    format: str
    site: str = UNKNOWN
    target: str = ""
    """Where a transcoder writes."""
    model: str = UNKNOWN
    policy: Mapping[str, Any] = field(default_factory=dict)
    tokens_trained: int = 0
    k: int | None = None
    """Active latents per token, where known."""

    def notes(self) -> tuple[str, ...]:
        """What is missing, one sentence each."""
        said = unsaid(self.site, self.target, self.model)
        if not self.policy:
            said.append("the files do not say how text became tokens: the default token policy is assumed")
        if not self.tokens_trained:
            said.append("the files do not say on how many tokens it was trained")
        if self.k is None:
            said.append(f"the files do not say how many latents fire per token: k = {STAND_IN_K} stands in for it")
        said.append("fingerprints of model and tokenizer are not recorded: that they fit can't be checked")
        return tuple(said)


@dataclass(frozen=True, eq=False)
class Parts:
    """Weights in our orientation with another tool's conventions about centring.

    `z = W_enc (s·x − centred·b_dec) + b_enc`, `x_hat = (W_decᵀ f + b_dec) / s`.
    """

    W_enc: Float[Tensor, "F d"]
    W_dec: Float[Tensor, "F d_out"]
    b_enc: Float[Tensor, "F"]
    b_dec: Float[Tensor, "d_out"]
    centred: bool = True
    scale: float = 1.0
    threshold: Float[Tensor, "..."] = field(default_factory=lambda: torch.empty(0))
    gain: Float[Tensor, "..."] = field(default_factory=lambda: torch.empty(0))
    shift: Float[Tensor, "..."] = field(default_factory=lambda: torch.empty(0))

    def assemble(self, allocation: Allocation, origin: Origin) -> Dictionary:
        """The Dictionary of the same function. Without centring, `W_enc b_dec` goes into the encoder's bias.

        Raises:
            UserError: k exceeds the number of latents.
        """
        F, d = self.W_enc.shape
        if (origin.k or 0) > F:
            raise UserError(f"k = {origin.k} active latents of {F}: the settings can't be right")
        d_out = self.W_dec.shape[1]
        transcodes = bool(origin.target)
        if not transcodes and d_out != d:
            raise UserError(f"it reads {d} numbers and writes {d_out}, but says nothing of being a transcoder")
        config = DictionaryConfig(
            architecture=_NAMES[type(allocation)], d_in=d, d_sae=F, k=origin.k or min(STAND_IN_K, F),
            affinity=ActivationAffinity(), allocation=allocation,
            rule="topk" if isinstance(allocation, TokenChoice) else "threshold", scale=self.scale, site=origin.site,
            targets=(Target(site=origin.target, width=d_out, scale=1.0),) if transcodes else (), model=origin.model,
            model_fingerprint="", tokenizer_fingerprint="", policy=dict(origin.policy),
            tokens_trained=origin.tokens_trained, saelab_version=saelab.__version__, imported_from=origin.format,
        )  # fmt: skip
        b_enc = self.b_enc if self.centred or transcodes else self.b_enc + bias_of_centre(self.W_enc, self.b_dec)
        W_enc, W_dec, b_enc, b_dec, threshold, gain, shift = (
            tensor.to(torch.float32).contiguous()
            for tensor in (self.W_enc, self.W_dec, b_enc, self.b_dec, self.threshold, self.gain, self.shift)
        )
        dictionary = Dictionary(W_enc, W_dec, b_enc, b_dec, threshold, config, gain, shift)
        require_numbers(dictionary, "once its weights are brought into one convention")
        return dictionary


def plain(dictionary: Dictionary, tool: str, transcoders: bool = False) -> Dictionary:
    """What is written: folded, in fp32, on the CPU.

    Raises:
        UserError: a supervised dictionary, a transcoder that `tool` has no place for, or weights that are no numbers.
    """
    config = dictionary.config
    if config.rule == "group":
        raise UserError(f"{tool} can't express a supervised dictionary, where every token has one latent of each group")
    if config.targets and not transcoders:
        raise UserError(f"{tool} has no transcoder of this kind; this one reads {config.site}")
    if len(config.targets) > 1:
        raise UserError(f"{tool} has no transcoder with several targets, such as {', '.join(config.target_sites)}")
    folded = dictionary.to("cpu").to(torch.float32).folded()
    require_numbers(folded, "once the scale is folded in")
    return folded


def require_numbers(dictionary: Dictionary, when: str) -> None:
    """Refuse weights that are, or have become, NaN or infinite."""
    for name in ("W_enc", "W_dec", "b_enc", "b_dec", "threshold", "gain", "shift"):
        if not torch.isfinite(getattr(dictionary, name)).all():
            raise UserError(f"{name} holds NaN or infinite numbers {when}")


def bias_of_centre(W_enc: Float[Tensor, "F d"], b_dec: Float[Tensor, "d"]) -> Float[Tensor, "F"]:
    """`W_enc b_dec`, summed in fp64: what centring takes from a pre-activation."""
    rows = max(1, 2**24 // max(1, W_enc.shape[1]))
    parts = [part.double() @ b_dec.double() for part in W_enc.split(rows)]
    return torch.cat(parts)


def gate(
    W_enc_bias: Float[Tensor, "F"], r_mag: Float[Tensor, "F"], b_mag: Float[Tensor, "F"]
) -> tuple[Float[Tensor, "F"], Float[Tensor, "F"]]:
    """Our gain and shift of a gated encoder whose magnitude is `exp(r)·u + b_mag` and gate `u + b_gate`.

    With `z = u + b_gate`: `gain = exp(r)`, `shift = b_mag − gain·b_gate`, in fp64.
    """
    gain = r_mag.double().exp()
    return gain, b_mag.double() - gain * W_enc_bias.double()


def ungated(dictionary: Dictionary) -> dict[str, Float[Tensor, "F"]]:
    """`b_gate`, `b_mag` and `r_mag` of a gated dictionary with centred input: `gate` the other way round.

    Raises:
        UserError: a gain is not positive, so that it has no logarithm.
    """
    gain, b_enc = dictionary.gain.double(), dictionary.b_enc.double()
    if not (gain > 0).all():
        raise UserError("a gated encoder with a gain of 0 can't be written: the format keeps its logarithm")
    return {
        "b_gate": (b_enc - dictionary.threshold.double().clamp(min=0)).float(),
        "b_mag": (gain * b_enc + dictionary.shift.double()).float(),
        "r_mag": gain.log().float(),
    }
