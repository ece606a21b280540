"""Run directories as training leaves them, with random dictionaries."""

from pathlib import Path

import torch

from saelab.config import to_yaml
from saelab.corpora import TokenPolicy
from saelab.dictionaries.config import ActivationAffinity, DictionaryConfig, GradientAffinity, TokenChoice
from saelab.dictionaries.dictionary import Dictionary
from saelab.disk import RunPaths, write_text
from saelab.models import LanguageModel, Site
from saelab.training import TrainConfig

POLICY = TokenPolicy(context=32)


def make_run(
    root: Path, model: LanguageModel, site: str, seed: int = 0, beta: float | None = None, policy: TokenPolicy = POLICY
) -> Path:
    """A top-k dictionary of 24 latents.

    Args:
        beta: of the gradient affinity; None for the plain one.
    """
    generator = torch.Generator().manual_seed(seed)
    width = model.width(Site.parse(site))
    weights = torch.nn.functional.normalize(torch.randn(24, width, generator=generator), dim=1)
    config = DictionaryConfig(
        architecture="topk", d_in=width, d_sae=24, k=3, allocation=TokenChoice(),
        affinity=ActivationAffinity() if beta is None else GradientAffinity(beta=beta),
        rule="topk", scale=1.0, site=site, model=model.name, model_fingerprint=model.fingerprint,
        tokenizer_fingerprint=model.tokenizer_fingerprint or "", policy=policy.model_dump(), tokens_trained=0,
        saelab_version="0",
    )  # fmt: skip
    dictionary = Dictionary(weights, weights.clone(), torch.zeros(24), torch.zeros(width), torch.zeros(0), config)
    paths = RunPaths(root)
    dictionary.save(paths.dictionary, golden=torch.randn(8, width, generator=generator))
    settings = TrainConfig.model_validate(
        {"model": model.name, "site": site, "sae": {"d_sae": 24, "k": 3}, "policy": policy}
    )
    write_text(paths.config, to_yaml(settings))
    return root
