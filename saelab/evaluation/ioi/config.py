"""Settings of `saelab ioi` and of the suite `ioi`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from saelab.config import Config, Count
from saelab.training.config import Preset


def _listed(value: Any) -> Any:
    """ "topk,gated" is a list too."""
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


class TaskSaeConfig(Config):
    """One sparse autoencoder per node, trained on the fit prompts' activations there; alike for every architecture."""

    d_sae: int = Field(default=512, gt=0)
    """Number of latents (512 and k = 3 are the follow-up's of arXiv 2405.08366)."""
    k: int = Field(default=3, gt=0)
    """Active latents per activation (where there is a penalty instead: what it is steered to)."""
    tokens: Count = Field(default=300_000, gt=0)
    """Activations to train on; the fit prompts are read again and again."""
    batch: Count = Field(default=1024, gt=0)
    """Activations per step."""
    lr: float = Field(default=1e-2, gt=0)
    """Peak learning rate; high, because 300 steps have to do: thresholds hardly move at a fifth of it."""


class IoiSettings(Config):
    """What decides the numbers of the suite."""

    names: Literal["train", "test", "all"] = "train"
    """Which half of the names all prompts use. The bundled model has seen the train half alone as answers."""
    fit_templates: tuple[int, ...] = (1, 2)
    """Templates of the prompts that dictionaries are fitted to, with the train half of places and objects."""
    test_templates: tuple[int, ...] = (3,)
    """Templates of the prompts that they are judged on, with the test half of places and objects."""
    bos: bool = True
    """Begin prompts with the tokenizer's beginning-of-text token, if it has one."""
    fit_prompts: Count = Field(default=20_000, gt=1)
    """Prompts that dictionaries are fitted to."""
    test_prompts: Count = Field(default=5_000, gt=1)
    """Prompts that the model's answers and the latents' F1 are measured on."""
    patched_prompts: Count = Field(default=500, gt=1)
    """The first of them, which the model is run on with patches: once for every dictionary, attribute and budget."""
    search_prompts: Count = Field(default=128, gt=1)
    """Prompts on which heads are looked for, where the circuit is not known."""
    circuit: Literal["auto", "published", "found"] = "auto"
    """published: GPT-2 small's heads; found: by patching; auto: published for a model of GPT-2 small's shape."""
    threshold: float = Field(default=0.05, gt=0, le=1)
    """A head has a role if its effect is this share of the role's strongest head's …"""
    floor: float = Field(default=0.01, ge=0, lt=1)
    """… and this share of the whole way from the clean to the corrupted logit difference."""
    carried: float = Field(default=0.1, ge=0, le=1)
    """An attribute is edited where the true patch changes at least this share of answers."""
    budgets: tuple[int, ...] = Field(default=(1, 2, 4, 6, 8, 16, 32), min_length=1)
    """Latents that an edit may touch at each node."""
    keys: bool = False
    """Test the name movers' queries together with their keys at IO and S1 too (a run of nearly whole prompts each)."""
    components: int = Field(default=16, gt=0)
    """Principal components of the baseline PCA."""
    resamples: int = Field(default=1000, gt=0)
    """Bootstrap samples behind each interval."""
    seed: int = Field(default=0, ge=0)
    """Seed of prompts, counterfactuals, initial weights and bootstrap."""

    @model_validator(mode="after")
    def _subset(self) -> IoiSettings:
        if self.patched_prompts > self.test_prompts:
            raise ValueError(
                f"patched_prompts = {self.patched_prompts} are the first of test_prompts = {self.test_prompts}, "
                "so they can't be more"
            )
        return self


class _OnModel(IoiSettings):
    """How the model runs, and what becomes of reports that are there."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the language model; dictionaries run in float32."""
    overwrite: bool = False
    """Replace reports that were made with other settings."""


class IoiConfig(_OnModel):
    """Supervised dictionaries of one model, the tests on them, and the same for dictionaries trained on the task."""

    model: str = "demo"
    """Hugging Face name, local folder, or "demo" for the bundled model."""
    train: Annotated[tuple[Preset, ...], BeforeValidator(_listed)] = ()
    """Architectures to train on the task and test beside: --train topk,gated (any but gradient)."""
    sae: TaskSaeConfig = TaskSaeConfig()
    """Size and training of these."""

    @model_validator(mode="after")
    def _no_gradients(self) -> IoiConfig:
        if "gradient" in self.train:
            raise ValueError("gradient can't be trained on prompts alone: it needs the loss gradient at every token")
        return self


class JudgeConfig(_OnModel):
    """The suite on finished dictionaries: `saelab evaluate RUN... --suite ioi`."""

    runs: list[Path] = Field(min_length=1)
    """Runs (or dictionary folders) to judge; those of one architecture at different sites are tested together."""
    model: str | None = None
    """Model name or folder; left out, the one that the dictionaries name."""
