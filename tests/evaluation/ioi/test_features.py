"""A dictionary as the tests see it."""

from dataclasses import replace

import pytest
import torch

from saelab.dictionaries.config import ActivationAffinity, DictionaryConfig, Target, TokenChoice
from saelab.dictionaries.dictionary import Dictionary
from saelab.errors import UserError
from saelab.evaluation.ioi.features import of_dictionary
from saelab.evaluation.ioi.toys import unwritten_prompts


@pytest.fixture
def dictionary() -> Dictionary:
    """Two times the input, less a bias, in coordinates."""
    config = DictionaryConfig(
        architecture="topk", d_in=3, d_sae=3, k=2, affinity=ActivationAffinity(), allocation=TokenChoice(),
        rule="topk", scale=2.0, site="blocks.0.resid_post", model="", model_fingerprint="", tokenizer_fingerprint="",
        policy={}, tokens_trained=0, saelab_version="0",
    )  # fmt: skip
    return Dictionary(torch.eye(3), torch.eye(3), torch.zeros(3), torch.ones(3), torch.empty(0), config)


def test_the_scale_is_folded_in(dictionary: Dictionary) -> None:
    features, prompts = of_dictionary("mine", dictionary), unwritten_prompts(1, 4, torch.Generator())
    codes = features.encode(torch.tensor([[2.0, 1.5, 1.0]]), prompts)
    assert codes.to_dense().tolist() == [[3, 2, 0]]
    assert (features.vectors.tolist(), features.bias.tolist()) == ((torch.eye(3) / 2).tolist(), [0.5, 0.5, 0.5])
    assert features.reconstruct(codes).tolist() == [[2, 1.5, 0.5]]
    assert features.reconstruct(codes, torch.tensor([False, True, True])).tolist() == [[0.5, 1.5, 0.5]]


def test_a_transcoder_is_refused(dictionary: Dictionary) -> None:
    config = dictionary.config.model_copy(update={"targets": (Target(site="blocks.0.mlp_out", width=3, scale=1.0),)})
    with pytest.raises(UserError, match="mine is a transcoder"):
        of_dictionary("mine", replace(dictionary, config=config))
