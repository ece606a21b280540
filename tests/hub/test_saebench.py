"""SAEBench's expected interface, held against the dictionary itself. SAEBench is not needed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from saelab.errors import UserError
from saelab.hub.saebench import SAEBenchAdapter
from tests.dictionaries.test_dictionary import make


@pytest.mark.parametrize("kind", ["topk", "threshold", "gated"])
def test_reconstructions_are_the_dictionary_s(kind: str) -> None:
    dictionary = make(kind, scale=0.3)
    dictionary = replace(dictionary, W_dec=dictionary.W_dec * torch.linspace(0.5, 2, dictionary.d_sae)[:, None])
    sae, x = SAEBenchAdapter(dictionary), torch.randn(2, 7, dictionary.d_in) / 0.3
    assert_close(sae(x), dictionary(x), rtol=1e-5, atol=1e-5)
    assert sae.encode(x).shape == (2, 7, dictionary.d_sae)
    assert_close(sae.encode(x[0]), sae.encode(x)[0])
    assert torch.equal(sae.encode(x) != 0, dictionary.encode(x).to_dense() != 0)


def test_codes_are_lengths_by_hand() -> None:
    """A latent of decoder row [3, 4, 0, …] / scale 2 at activation f adds a vector of length 2.5 f."""
    dictionary = make(scale=2.0)
    W_dec = dictionary.W_dec.clone()
    W_dec[5] = torch.tensor([3.0, 4, 0, 0, 0, 0])
    dictionary = replace(dictionary, W_dec=W_dec)
    sae, x = SAEBenchAdapter(dictionary), torch.randn(40, 6)
    f = dictionary.encode(x).to_dense()[:, 5]
    assert (f > 0).any()
    assert_close(sae.encode(x)[:, 5], 2.5 * f)
    assert sae.check_decoder_norms()


def test_a_row_of_zeros_is_seen() -> None:
    dictionary = make()
    W_dec = dictionary.W_dec.clone()
    W_dec[0] = 0
    sae = SAEBenchAdapter(replace(dictionary, W_dec=W_dec))
    assert not sae.check_decoder_norms()
    assert torch.isfinite(sae(torch.randn(5, 6))).all()


def test_it_moves_as_a_module_does() -> None:
    sae = SAEBenchAdapter(make())
    assert sae.to(torch.bfloat16) is sae
    assert (sae.dtype, sae.cfg.dtype, sae.device, sae.cfg.device) == (
        torch.bfloat16, "bfloat16", torch.device("cpu"), "cpu",
    )  # fmt: skip
    assert sae(torch.randn(5, 6)).dtype == torch.bfloat16
    assert not any(parameter.requires_grad for parameter in sae.parameters())


def test_the_configuration_says_where() -> None:
    dictionary = make()
    config = dictionary.config.model_copy(
        update={"site": "blocks.3.attn.z.head2", "policy": {"context": 64, "bos": True}, "tokens_trained": 9}
    )
    cfg = SAEBenchAdapter(replace(dictionary, config=config), model_name="pythia-70m").cfg
    assert (cfg.hook_layer, cfg.hook_name, cfg.hook_head_index) == (3, "blocks.3.attn.hook_z", 2)
    assert (cfg.context_size, cfg.prepend_bos, cfg.training_tokens, cfg.model_name) == (64, True, 9, "pythia-70m")
    assert cfg.to_dict()["d_sae"] == 16


def test_what_it_can_not_evaluate_is_refused() -> None:
    with pytest.raises(UserError, match="transcoder"):
        SAEBenchAdapter(make("transcoder"))
    lost = make().config.model_copy(update={"site": "unknown"})
    with pytest.raises(UserError, match="unknown"):
        SAEBenchAdapter(replace(make(), config=lost))
