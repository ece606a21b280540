"""The bundled model with prompts that it answers, and GPT-2's tokenizer where it is at hand."""

from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from saelab.activations.forward import tokenizer_of
from saelab.evaluation.ioi.task import Prompts, task
from saelab.models import LanguageModel

GPT2_TOKENIZER = Path(__file__).parents[4] / "shared" / "data" / "gpt2-tokenizer"


@pytest.fixture(scope="session")
def demo() -> LanguageModel:
    return LanguageModel.load("demo")


@pytest.fixture(scope="session")
def tokenizer(demo: LanguageModel) -> PreTrainedTokenizerFast:
    return tokenizer_of(demo)


@pytest.fixture(scope="session")
def prompts(tokenizer: PreTrainedTokenizerFast) -> Prompts:
    """Twelve prompts of all three templates, so of three lengths."""
    return task(tokenizer, "test", 12, seed=3, templates=(1, 2, 3), names="train")


@pytest.fixture(scope="session")
def gpt2_tokenizer() -> PreTrainedTokenizerFast:
    if not GPT2_TOKENIZER.is_dir():
        pytest.skip("GPT-2's tokenizer is not at hand")
    from transformers import GPT2Tokenizer

    return GPT2Tokenizer.from_pretrained(GPT2_TOKENIZER)


@pytest.fixture(scope="session")
def narrow_gpt2(gpt2_tokenizer: PreTrainedTokenizerFast) -> LanguageModel:
    """GPT-2 small but for its width: 12 layers of 12 heads, all 50,257 tokens, random weights."""
    torch.manual_seed(0)
    shape = GPT2Config(n_embd=48, n_positions=64, initializer_range=0.2)
    return LanguageModel.from_hf(GPT2LMHeadModel(shape), gpt2_tokenizer, name="narrow gpt2")
