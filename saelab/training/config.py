"""Settings of `saelab train`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from saelab.config import Config, Count
from saelab.corpora.config import CorpusConfig
from saelab.corpora.policy import TokenPolicy
from saelab.dictionaries.config import (
    ActivationAffinity,
    Affinity,
    Allocation,
    Budgeted,
    FeatureChoice,
    Gated,
    GradientAffinity,
    JumpRelu,
    MutualChoice,
    Relu,
    TokenChoice,
)
from saelab.kernels.backend import BackendName

Preset = Literal[
    "topk", "mutual-choice", "feature-choice", "gradient", "batch-topk", "matryoshka", "relu", "jumprelu", "gated"
]


class Warmup(Config):
    """A budget that begins elsewhere and moves to k in a straight line."""

    start: int = Field(gt=0)
    """Active latents per token at the first step."""
    fraction: float = Field(default=0.1, gt=0, le=1)
    """Share of training after which k is reached."""


class NoAux(Config):
    """No auxiliary loss."""

    kind: Literal["none"] = "none"


class AuxK(Config):
    """Dead latents reconstruct what the living ones leave over (aux_k, arXiv 2406.04093)."""

    kind: Literal["aux_k"] = "aux_k"
    coefficient: float = Field(default=1 / 32, gt=0)
    """Weight of the auxiliary loss beside the reconstruction loss."""
    k_aux: int | None = Field(default=None, gt=0)
    """Dead latents per token; left out, the power of two nearest d_out / 2."""
    stride: int | None = Field(default=None, gt=0)
    """Take the loss on every stride-th token of a batch (1: on all); left out, on so many that it keeps about 4·k
    latents for each token of the batch, and on 1,024 at least."""
    warmup_fraction: float = Field(default=0.0, ge=0, le=1)
    """Share of training over which the coefficient rises from zero."""


class AuxZipf(Config):
    """Starved latents join in as far as they lag behind a Zipf law (arXiv 2411.02124; formula our reading)."""

    kind: Literal["aux_zipf"] = "aux_zipf"
    coefficient: float = Field(default=1 / 32, gt=0)
    """Weight of the auxiliary loss beside the reconstruction loss."""
    k_aux: int | None = Field(default=None, gt=0)
    """Starved latents per token; left out, the power of two nearest d_out / 2."""
    stride: int | None = Field(default=None, gt=0)
    """Take the loss on every stride-th token of a batch (1: on all); left out, on so many that it keeps about 4·k
    latents for each token of the batch, and on 1,024 at least."""
    warmup_fraction: float = Field(default=0.0, ge=0, le=1)
    """Share of training over which the coefficient rises from zero."""
    c: float = Field(default=0.5, gt=0)
    """A latent is starved below this share of the density that the law expects of its rank; towards 0 this is aux_k."""
    fit_every: int = Field(default=100, gt=0)
    """Steps between fits of the law to the running densities."""


Auxiliary = Annotated[NoAux | AuxK | AuxZipf, Field(discriminator="kind")]


class _Point(NamedTuple):
    """What a preset fills in: a point of the grid affinity × allocation, and what goes with it."""

    affinity: type[Config]
    allocation: type[Config]
    aux: type[Config] = AuxK
    prefixes: tuple[float, ...] = (1.0,)


PRESETS: dict[Preset, _Point] = {
    "topk": _Point(ActivationAffinity, TokenChoice),
    "mutual-choice": _Point(ActivationAffinity, MutualChoice),
    "feature-choice": _Point(ActivationAffinity, FeatureChoice),
    "gradient": _Point(GradientAffinity, TokenChoice),
    "batch-topk": _Point(ActivationAffinity, MutualChoice),  # the name that arXiv 2412.06410 gives the same rule
    "matryoshka": _Point(ActivationAffinity, MutualChoice, prefixes=(1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)),
    # Penalised architectures come without auxiliary loss in their papers.
    "relu": _Point(ActivationAffinity, Relu, NoAux),
    "jumprelu": _Point(ActivationAffinity, JumpRelu, NoAux),
    "gated": _Point(ActivationAffinity, Gated, NoAux),
}


class SaeConfig(Config):
    """The dictionary to train: its size, its budget, and its place in the grid affinity × allocation."""

    preset: Preset = "topk"
    """A name for a point of the grid, which affinity, allocation, prefixes and aux then refine: topk, mutual-choice,
    feature-choice, gradient; baselines: batch-topk, matryoshka, relu, jumprelu, gated."""
    d_sae: Count = Field(gt=0)
    """Number of latents."""
    k: int = Field(default=32, gt=0)
    """Budget of active latents per token (where there is a penalty instead: what it is steered to)."""
    k_warmup: Warmup | None = None
    """Begin with another budget; many latents at first keep more of them alive."""
    affinity: Affinity = ActivationAffinity()
    """How much a token wants a latent; set by the preset unless given."""
    allocation: Allocation = TokenChoice()
    """How the budget is spent; set by the preset unless given."""
    prefixes: tuple[float, ...] = Field(default=(1.0,), min_length=1)
    """Shares of the latents, each of which must reconstruct alone: nested dictionaries (Matryoshka, arXiv 2503.17547);
    rising, the last is 1; set by the preset unless given."""
    aux: Auxiliary = AuxK()
    """What keeps latents alive; set by the preset unless given."""
    dead_after: Count = Field(default=10_000_000, gt=0)
    """A latent that fired for none of this many tokens is dead; make it a share of a short run."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: Any) -> Any:
        """The preset fills what is not given, so that `--sae.preset gradient --sae.allocation.kind mutual` combines."""
        if not isinstance(values, dict) or values.get("preset", "topk") not in PRESETS:
            return values
        point = PRESETS[values.get("preset", "topk")]
        return {
            "prefixes": point.prefixes,
            **values,
            "affinity": _with_kind(values.get("affinity"), point.affinity),
            "allocation": _with_kind(values.get("allocation"), point.allocation),
            "aux": _with_kind(values.get("aux"), point.aux),
        }

    @model_validator(mode="after")
    def _makes_sense(self) -> SaeConfig:
        most = max(self.k, self.k_warmup.start if self.k_warmup else 0)
        if most > self.d_sae:
            raise ValueError(f"{most} active latents per token (k, k_warmup.start) can't exceed d_sae = {self.d_sae}")
        if list(self.prefixes) != sorted(set(self.prefixes)) or self.prefixes[0] <= 0 or self.prefixes[-1] != 1:
            raise ValueError(f"prefixes must rise, begin above 0 and end with 1, not {list(self.prefixes)}")
        if int(self.prefixes[0] * self.d_sae) < 1:
            raise ValueError(f"prefixes: {self.prefixes[0]} of {self.d_sae} latents is less than one latent")
        if not isinstance(self.allocation, Budgeted):
            for key, default in (("k_warmup", None), ("affinity", ActivationAffinity())):
                if getattr(self, key) != default:
                    raise ValueError(f"{key} needs a budget: allocation token, mutual or feature")
        return self

    @property
    def architecture(self) -> str:
        """The preset's name if nothing was changed about it, else the parts: "gradient × mutual × prefixes"."""
        named: list[Preset] = [self.preset, *(name for name in PRESETS if name != self.preset)]
        for name in named:
            if PRESETS[name][:2] == (type(self.affinity), type(self.allocation)) and (
                (len(PRESETS[name].prefixes) > 1) == (len(self.prefixes) > 1)
            ):
                return name
        parts = f"{self.affinity.kind} × {self.allocation.kind}"
        return f"{parts} × prefixes" if len(self.prefixes) > 1 else parts

    def k_at(self, progress: float) -> float:
        """The budget per token when this share of training is done."""
        if self.k_warmup is None:
            return self.k
        way = risen(progress, self.k_warmup.fraction)
        return self.k if way == 1 else self.k_warmup.start + (self.k - self.k_warmup.start) * way

    def prefix_ends(self) -> tuple[int, ...]:
        """How many latents each nested dictionary has."""
        return tuple(sorted({int(share * self.d_sae) for share in self.prefixes}))


def risen(progress: float, fraction: float) -> float:
    """How far a warm-up over the first `fraction` of training has come, from 0 to 1, when `progress` is done."""
    return min(1.0, progress / fraction) if fraction else 1.0


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
    """Hugging Face name or local folder; "demo" is the bundled model."""
    site: str = "blocks.2.resid_post"
    """Where in the model, as blocks.LAYER.KIND: resid_pre, resid_mid, resid_post, mlp_out, attn_out, attn.z, …"""
    target: str | tuple[str, ...] | None = None
    """Site or sites to reconstruct when it is not the site itself: a transcoder (several: one behind the other)."""
    corpus: CorpusConfig = CorpusConfig()
    """Which text."""
    policy: TokenPolicy = TokenPolicy()
    """How text becomes rows of tokens, and which positions are left out."""
    activations: str | None = None
    """Directory made by `saelab harvest`; its model, corpus and policy then hold. Else the model runs alongside."""
    sae: SaeConfig
    """The dictionary to train."""
    tokens: Count = Field(default=10_000_000, gt=0)
    """Tokens to train on. The data repeats when it has fewer."""
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
    shuffle_seed: int | None = None
    """Seed of the shuffle alone, so that runs with several seeds can share one pass; left out, `seed`."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the language model; the dictionary is trained in float32."""
    backend: BackendName = "auto"
    """Kernels: auto, triton (NVIDIA GPUs), triton-bf16 (encoder product in bf16), cpu, cpu-bf16 or cpu-int8 (topk and
    mutual-choice; compares in low precision and settles in fp32 what that leaves open: same choice), reference (dense,
    slow)."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> TrainConfig:
        if self.batch > self.buffer:
            raise ValueError(f"batch = {self.batch} tokens can't exceed buffer = {self.buffer} tokens")
        if self.tokens < self.batch:
            raise ValueError(f"tokens = {self.tokens} is less than one batch of {self.batch}")
        if not isinstance(self.sae.aux, NoAux) and (self.sae.aux.stride or 1) > self.batch:
            raise ValueError(f"sae.aux.stride = {self.sae.aux.stride} leaves no token of a batch of {self.batch}")
        return self

    @model_validator(mode="after")
    def _gradient_belongs_to_the_decoder(self) -> TrainConfig:
        if self.targets and isinstance(self.sae.affinity, GradientAffinity):
            raise ValueError("the gradient affinity weighs W_dec by ∇_x L at the site: it can't be used with a target")
        return self

    @model_validator(mode="after")
    def _scoring_fits(self) -> TrainConfig:
        choice, affinity = self.sae.allocation, self.sae.affinity
        scorable = isinstance(choice, TokenChoice | MutualChoice) and isinstance(affinity, ActivationAffinity)
        if self.backend in ("cpu-bf16", "cpu-int8") and not scorable:
            raise ValueError(f"backend = {self.backend} needs token or mutual choice by activation (such as topk)")
        return self

    @property
    def steps(self) -> int:
        return self.tokens // self.batch

    @property
    def targets(self) -> tuple[str, ...]:
        """Target sites as a tuple; empty when the site itself is reconstructed."""
        return (self.target,) if isinstance(self.target, str) else self.target or ()

    @property
    def order(self) -> int:
        """Seed of the shuffle."""
        return self.seed if self.shuffle_seed is None else self.shuffle_seed
