"""Settings of `saelab train`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from saelab.config import Config, Count
from saelab.corpora.config import CorpusConfig
from saelab.corpora.policy import TokenPolicy
from saelab.dictionaries.config import (
    ActivationAffinity,
    Affinity,
    Allocation,
    FeatureChoice,
    GradientAffinity,
    MutualChoice,
    TokenChoice,
)
from saelab.kernels.backend import BackendName

Preset = Literal["topk", "mutual-choice", "feature-choice", "gradient"]

PRESETS: dict[Preset, tuple[type[Config], type[Config]]] = {
    "topk": (ActivationAffinity, TokenChoice),
    "mutual-choice": (ActivationAffinity, MutualChoice),
    "feature-choice": (ActivationAffinity, FeatureChoice),
    "gradient": (GradientAffinity, TokenChoice),
}


class NoAux(Config):
    """No auxiliary loss."""

    kind: Literal["none"] = "none"


class AuxK(Config):
    """Dead latents reconstruct what the living ones leave over (aux_k, arXiv 2406.04093)."""

    kind: Literal["aux_k"] = "aux_k"
    coefficient: float = Field(default=1 / 32, gt=0)
    """Weight of the auxiliary loss beside the reconstruction loss."""
    k_aux: int | None = Field(default=None, gt=0)
    """Dead latents per token; left out, the power of two nearest d_in / 2."""


class AuxZipf(Config):
    """Starved latents join in as far as they lag behind a Zipf law (arXiv 2411.02124; formula our reading)."""

    kind: Literal["aux_zipf"] = "aux_zipf"
    coefficient: float = Field(default=1 / 32, gt=0)
    """Weight of the auxiliary loss beside the reconstruction loss."""
    k_aux: int | None = Field(default=None, gt=0)
    """Starved latents per token; left out, the power of two nearest d_in / 2."""
    c: float = Field(default=0.5, gt=0)
    """A latent is starved below this share of the density that the law expects of its rank; towards 0 this is aux_k."""
    fit_every: int = Field(default=100, gt=0)
    """Steps between fits of the law to the running densities."""


Auxiliary = Annotated[NoAux | AuxK | AuxZipf, Field(discriminator="kind")]


class SaeConfig(Config):
    """The dictionary to train: its size, its budget, and its place in the grid affinity × allocation."""

    preset: Preset = "topk"
    """A name for a point of the grid: topk, mutual-choice, feature-choice, gradient."""
    d_sae: Count = Field(gt=0)
    """Number of latents."""
    k: int = Field(default=32, gt=0)
    """Budget of active latents per token."""
    affinity: Affinity = ActivationAffinity()
    """How much a token wants a latent; set by the preset unless given."""
    allocation: Allocation = TokenChoice()
    """How the budget is spent; set by the preset unless given."""
    aux: Auxiliary = AuxK()
    """What keeps latents alive."""
    dead_after: Count = Field(default=10_000_000, gt=0)
    """A latent that fired for none of this many tokens is dead; make it a share of a short run."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: Any) -> Any:
        """The preset fills what is not given, so that `--sae.preset gradient --sae.allocation.kind mutual` combines."""
        if not isinstance(values, dict) or values.get("preset", "topk") not in PRESETS:
            return values
        affinity, allocation = PRESETS[values.get("preset", "topk")]
        return {
            **values,
            "affinity": _with_kind(values.get("affinity"), affinity),
            "allocation": _with_kind(values.get("allocation"), allocation),
        }

    @model_validator(mode="after")
    def _k_fits(self) -> SaeConfig:
        if self.k > self.d_sae:
            raise ValueError(f"k = {self.k} active latents per token can't exceed d_sae = {self.d_sae}")
        return self

    @property
    def architecture(self) -> str:
        """The preset's name where the pair has one, else "affinity × allocation"."""
        pair = (type(self.affinity), type(self.allocation))
        names = [name for name, preset in PRESETS.items() if preset == pair]
        return names[0] if names else f"{self.affinity.kind} × {self.allocation.kind}"


def _with_kind(given: Any, default: type[Config]) -> Any:
    """Partial settings (`{"beta": 2}`) belong to the preset's own kind."""
    kind = default.model_fields["kind"].default
    return {"kind": kind, **given} if isinstance(given, dict) else given if given is not None else {"kind": kind}


class OptimizerConfig(Config):
    """Adam with unit-norm decoder rows."""

    lr: float | None = Field(default=None, gt=0)
    """Learning rate; left out, 2e-4 / sqrt(d_sae / 2^14) (arXiv 2406.04093)."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the gradient's running mean."""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the squared gradient's running mean."""
    warmup_fraction: float = Field(default=0.02, ge=0, lt=1)
    """Share of training over which the learning rate rises from zero."""
    decay_fraction: float = Field(default=0.2, ge=0, le=1)
    """Share of training, at its end, over which the learning rate falls linearly to zero."""

    def rate(self, d_sae: int) -> float:
        """The peak learning rate."""
        return self.lr if self.lr is not None else 2e-4 / (d_sae / 2**14) ** 0.5


class TrainConfig(Config):
    """One dictionary, from text or from a directory of harvested activations."""

    model: str = "demo"
    """Hugging Face name, local folder, or "demo" for the bundled model."""
    site: str = "blocks.2.resid_post"
    """Where in the model, as blocks.LAYER.KIND: resid_pre, resid_mid, resid_post, mlp_out, attn_out, attn.z, …"""
    corpus: CorpusConfig = CorpusConfig()
    """Which text."""
    policy: TokenPolicy = TokenPolicy()
    """How text becomes rows of tokens, and which positions are left out."""
    activations: str | None = None
    """Directory made by `saelab harvest`, whose model, corpus and policy then hold; else the model runs alongside."""
    sae: SaeConfig
    """The dictionary to train."""
    tokens: Count = Field(default=10_000_000, gt=0)
    """Tokens to train on (the data repeats when it has fewer)."""
    batch: Count = Field(default=4096, gt=0)
    """Tokens per step."""
    buffer: Count = Field(default=262_144, gt=0)
    """Tokens held in memory and shuffled together."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Learning rate and its course."""
    checkpoint_every: Count = Field(default=2_000_000, gt=0)
    """Tokens between checkpoints; the last two are kept."""
    log_every: int = Field(default=20, gt=0)
    """Steps between lines of metrics.jsonl."""
    seed: int = 0
    """Seed of the initial weights and of the shuffle."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the language model; the dictionary is trained in float32."""
    backend: BackendName = "auto"
    """Sparse kernels: auto, or reference (dense, slow, the oracle)."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> TrainConfig:
        if self.batch > self.buffer:
            raise ValueError(f"batch = {self.batch} tokens can't exceed buffer = {self.buffer} tokens")
        if self.tokens < self.batch:
            raise ValueError(f"tokens = {self.tokens} is less than one batch of {self.batch}")
        return self

    @property
    def steps(self) -> int:
        return self.tokens // self.batch
