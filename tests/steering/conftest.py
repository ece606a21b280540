"""A GPT-2 whose output is linear in its last residual stream, and dictionaries on it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from saelab.dictionaries.config import ActivationAffinity, DictionaryConfig, TokenChoice
from saelab.dictionaries.dictionary import Dictionary
from saelab.models import LanguageModel

WIDTH, VOCABULARY, LAST = 16, 40, "blocks.1.resid_post"


@pytest.fixture(scope="session")
def model() -> LanguageModel:
    """Every LayerNorm has eps 10^8 and gain 10^4: it divides by sqrt(var + 10^8) = 10^4 whatever comes in, so that
    at the end logits = (x - mean(x)) W_U, linear in x."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=24, n_embd=WIDTH, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0,
        initializer_range=0.3, tie_word_embeddings=False, layer_norm_epsilon=1e8,
    )  # fmt: skip
    hf_model = GPT2LMHeadModel(config)
    for module in hf_model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.weight.data.fill_(1e4)
    return LanguageModel.from_hf(hf_model, name="linear")


@pytest.fixture(scope="session")
def tokens() -> Tensor:
    return torch.randint(VOCABULARY, (3, 10), generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="session")
def make_dictionary(model: LanguageModel) -> Callable[..., Dictionary]:
    """A top-k dictionary of random unit rows."""

    def build(site: str = LAST, k: int = 6, scale: float = 0.5, d_sae: int = 32) -> Dictionary:
        weights = torch.randn(d_sae, WIDTH, generator=torch.Generator().manual_seed(3))
        weights = torch.nn.functional.normalize(weights, dim=1)
        config = DictionaryConfig(
            architecture="topk", d_in=WIDTH, d_sae=d_sae, k=k, affinity=ActivationAffinity(), allocation=TokenChoice(),
            rule="topk", scale=scale, site=site, model=model.name, model_fingerprint=model.fingerprint,
            tokenizer_fingerprint="", policy={}, tokens_trained=0, saelab_version="0",
        )  # fmt: skip
        bias = torch.randn(WIDTH, generator=torch.Generator().manual_seed(4))
        return Dictionary(weights, weights.clone(), torch.zeros(d_sae), bias, torch.zeros(0), config)

    return build
