"""Settings of a dictionary: the two orthogonal choices (affinity, allocation) and what is saved with it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from saelab.config import Config

SCHEMA_VERSION = 1
BUDGET_TOLERANCE = 0.05  # of k: beyond it a dictionary does not do at inference what it was trained to do


class ActivationAffinity(Config):
    """A token wants a latent as much as the latent's pre-activation: `z` (TopK, arXiv 2406.04093)."""

    kind: Literal["activation"] = "activation"


class GradientAffinity(Config):
    """`z + β · z · |g|`, `g = W_dec ∇_x L` (g-SAE, arXiv 2411.10397, Figure 1)."""

    kind: Literal["gradient"] = "gradient"
    beta: float = Field(default=1.0, ge=0)
    """Weight of the gradient term; 0 is the activation affinity, bit for bit."""
    normalise: Literal["none", "mean1"] = "mean1"
    """Scale |g| to mean 1 in every batch before β (our reading), or leave it."""
    value: Literal["activation", "affinity"] = "activation"
    """Whether kept values are z or the affinity itself; the paper's figure leaves it open (our reading: z)."""


Affinity = Annotated[ActivationAffinity | GradientAffinity, Field(discriminator="kind")]


class TokenChoice(Config):
    """Every token keeps its k best latents (TopK, arXiv 2406.04093)."""

    kind: Literal["token"] = "token"


class MutualChoice(Config):
    """The batch keeps its k·B best matches, wherever they are (arXiv 2411.02124; BatchTopK, arXiv 2412.06410)."""

    kind: Literal["mutual"] = "mutual"


class FeatureChoice(Config):
    """Every latent i keeps its m_i best tokens, Σ m_i = k·B (arXiv 2411.02124)."""

    kind: Literal["feature"] = "feature"
    budgets: Literal["uniform", "zipf"] = "zipf"
    """m_i equal for all latents, or by a Zipf–Mandelbrot law over their running density (our reading)."""
    exponent: float | None = Field(default=None, gt=0)
    """s of the law w = (r + q)^-s; left out, s and q are fitted to the densities of the mutual phase."""
    shift: float = Field(default=0.0, ge=0)
    """q of the law when `exponent` is given."""
    warmup_fraction: float = Field(default=0.2, ge=0, lt=1)
    """Share of training spent in mutual choice first, so that densities settle (our reading)."""
    straight_through: bool = True
    """Let a kept match with z ≤ 0 receive the reconstruction gradient all the same (our reading)."""

    @model_validator(mode="after")
    def _a_fit_needs_densities(self) -> FeatureChoice:
        if self.budgets == "zipf" and self.exponent is None and self.warmup_fraction == 0:
            raise ValueError("fitted zipf budgets need densities: give warmup_fraction > 0, or an exponent")
        return self


class SparsityPenalty(Config):
    """Instead of a budget: a price on firing, in squared error per unit of what the architecture penalises."""

    coefficient: float | None = Field(default=None, gt=0)
    """λ; left out, it is steered until k latents are active per token (our own, so that L0 can be matched)."""
    warmup_fraction: float = Field(default=0.3, ge=0, le=1)
    """Share of training over which sparsity sets in: a given λ rises from zero; steered, L0 falls to k."""


class Relu(Config):
    """Every positive match is kept, and Σ f is penalised (ReLU + L1; arXiv 2309.08600)."""

    kind: Literal["relu"] = "relu"
    penalty: SparsityPenalty = SparsityPenalty()
    """Price of activation: λ · Σ f."""


class JumpRelu(Config):
    """Every match above its latent's learnt threshold is kept, and their number is penalised (arXiv 2407.14435)."""

    kind: Literal["jumprelu"] = "jumprelu"
    penalty: SparsityPenalty = SparsityPenalty()
    """Price of a match: λ · L0."""
    bandwidth: float = Field(default=0.1, gt=0)
    """ε of the straight-through estimate, in units of the inputs' root mean square norm √d (the paper: 0.001)."""
    threshold: float = Field(default=0.1, gt=0)
    """Where every θ begins, in the same units (the paper: 0.001, for runs a thousand times longer)."""


class Gated(Config):
    """A gate decides which latents fire, tied weights say how strongly (arXiv 2404.16014)."""

    kind: Literal["gated"] = "gated"
    penalty: SparsityPenalty = SparsityPenalty()
    """Price of opening the gates: λ · Σ relu(gate)."""


Budgeted = TokenChoice | MutualChoice | FeatureChoice
"""Allocations that spend k matches per token; the others learn how many they keep."""

Allocation = Annotated[
    TokenChoice | MutualChoice | FeatureChoice | Relu | JumpRelu | Gated, Field(discriminator="kind")
]


class Group(Config):
    """Latents that stand for the values of one attribute; together they are consecutive latents of the dictionary."""

    name: str
    """The attribute, such as "IO"; of several taken together, "IO x Pos"."""
    values: tuple[str, ...] = Field(min_length=1)
    """What each of its latents stands for."""


class GroupChoice(Config):
    """Every token has exactly one latent of each group (supervised dictionaries; never trained, always constructed)."""

    kind: Literal["group"] = "group"
    groups: tuple[Group, ...] = Field(min_length=1)
    """Groups in the order of their latents."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Latents of each group."""
        return tuple(len(group.values) for group in self.groups)


Rule = Literal["topk", "threshold", "group"]
"""How a finished dictionary encodes one token alone: its k best latents, every latent above its threshold, or the best
latent of each group."""


class Target(Config):
    """A site that a transcoder reconstructs."""

    site: str
    width: int = Field(gt=0)
    """Numbers per token."""
    scale: float = Field(gt=0)
    """The reconstruction was trained on this multiple of the site's activations (E|y|² = width)."""


class DictionaryConfig(Config):
    """What `dictionary/config.json` says."""

    schema_version: Literal[1] = SCHEMA_VERSION
    kind: Literal["sae", "supervised"] = "sae"
    """Learnt by reconstruction alone, or constructed from labels."""
    architecture: str
    """Name of the preset, or "affinity × allocation" for a combination without one."""
    d_in: int = Field(gt=0)
    d_sae: int = Field(gt=0)
    k: int = Field(gt=0)
    """Budget of active latents per token."""
    affinity: Affinity
    allocation: Annotated[
        TokenChoice | MutualChoice | FeatureChoice | Relu | JumpRelu | Gated | GroupChoice, Field(discriminator="kind")
    ]
    rule: Rule
    scale: float = Field(gt=0)
    """Inputs are multiplied by this before encoding (E|x|² = d_in); outputs too are divided by it, unless there are
    targets."""
    site: str
    targets: tuple[Target, ...] = ()
    """What is reconstructed, one behind the other, when it is not the site itself (transcoders)."""
    model: str
    model_fingerprint: str
    tokenizer_fingerprint: str
    policy: dict[str, Any]
    """Token policy of the training activations: which positions exist and which are excluded."""
    tokens_trained: int = Field(ge=0)
    saelab_version: str
    imported_from: str = ""
    """Format that another tool wrote it in; empty for saelab's own. Of relu, jumprelu and gated dictionaries the price
    of firing is then unknown, and k only stands in for it."""
    weights_sha256: str = ""
    """SHA-256 of dictionary.safetensors; filled in when the dictionary is written."""

    @model_validator(mode="after")
    def _groups_cover_the_latents(self) -> DictionaryConfig:
        if (self.rule == "group") != isinstance(self.allocation, GroupChoice):
            raise ValueError("rule group and allocation group belong together")
        if isinstance(self.allocation, GroupChoice) and sum(self.allocation.sizes) != self.d_sae:
            raise ValueError(f"the groups hold {sum(self.allocation.sizes)} latents and d_sae says {self.d_sae}")
        return self

    @property
    def d_out(self) -> int:
        """Numbers per reconstructed token."""
        return sum(target.width for target in self.targets) or self.d_in

    @property
    def target_sites(self) -> tuple[str, ...]:
        """Where reconstructions belong: the site itself but for transcoders."""
        return tuple(target.site for target in self.targets) or (self.site,)
