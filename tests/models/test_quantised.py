"""Models with quantised layers, handed in as objects: what they compute, and a fingerprint for what they hold."""

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization.qconfig import default_dynamic_qconfig
from torch.ao.quantization.quantize import quantize_dynamic
from torch.testing import assert_close
from transformers import LlamaConfig, LlamaForCausalLM

from saelab.errors import UserError
from saelab.models import Intervention, LanguageModel, Site
from saelab.models.fingerprints import plain_tensors
from tests.models.conftest import GROUPED


class Int8Linear(nn.Linear):
    """As bitsandbytes has it: int8 weights in the place of the weight, a scale for every row beside them."""

    scale: Tensor

    @classmethod
    def of(cls, linear: nn.Linear) -> "Int8Linear":
        made = cls(linear.in_features, linear.out_features, bias=False)
        scale = linear.weight.detach().abs().amax(1, keepdim=True) / 127
        made.weight = nn.Parameter((linear.weight / scale).round().to(torch.int8), requires_grad=False)
        made.register_buffer("scale", scale)
        return made

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, self.weight.to(input.dtype) * self.scale)


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**GROUPED)).eval()


def with_int8(hf, everything=False):
    for name, module in list(hf.named_modules()):
        if isinstance(module, nn.Linear) and (everything or name != "lm_head"):
            hf.set_submodule(name, Int8Linear.of(module))
    return hf


def with_packed(hf):
    """torch's own dynamic quantisation: weights are no parameters, but packed objects in the state dict."""
    names = {name for name, m in hf.named_modules() if isinstance(m, nn.Linear) and name != "lm_head"}
    settings = dict.fromkeys(names, default_dynamic_qconfig)
    return quantize_dynamic(hf, settings, dtype=torch.qint8)


@pytest.fixture(params=[with_int8, with_packed])
def quantised(request):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao tells everybody to move on to torchao
        return request.param(llama())


def test_it_computes_what_it_computed_before(quantised):
    tokens = torch.arange(24).view(2, 12)
    with torch.no_grad():
        expected = quantised(tokens, output_hidden_states=True)
    model = LanguageModel.from_hf(copy.deepcopy(quantised), name="quantised")
    assert (model.dtype, model.device) == (torch.float32, torch.device("cpu"))
    assert_close(model.logits(tokens), expected.logits, atol=1e-5, rtol=1e-5)
    sites = [Site(1, "resid_pre"), Site(1, "q"), Site(1, "z", 2), Site(1, "attn_out"), Site(1, "resid_mid")]
    found = model.activations(tokens, [*sites, Site(1, "resid_post")])
    assert_close(found[Site(1, "resid_post")], expected.hidden_states[2], atol=1e-5, rtol=1e-5)
    assert all(found[site].shape == (2, 12, model.width(site)) for site in sites)
    assert_close(found[sites[0]] + found[sites[3]], found[sites[4]], atol=1e-5, rtol=1e-5)
    with model.intervene(Intervention(Site(0, "z"), lambda z: 0 * z)):
        assert (model.logits(tokens) - expected.logits).abs().max() > 1e-4


def test_gradients_pass_through_int8_layers():
    tokens, site = torch.arange(24).view(2, 12), Site(1, "resid_post")
    hf = with_int8(llama())
    _, found = LanguageModel.from_hf(copy.deepcopy(hf), name="int8").activations_and_gradients(tokens, [site])
    dense = llama()
    for name, module in hf.named_modules():
        if isinstance(module, Int8Linear):
            dense.get_submodule(name).weight.data = module.weight.float() * module.scale
    _, expected = LanguageModel.from_hf(dense, name="dense").activations_and_gradients(tokens, [site])
    assert_close(found[site], expected[site], atol=1e-5, rtol=1e-5)


def test_fingerprints_see_quantised_weights(quantised):
    same, other = copy.deepcopy(quantised), copy.deepcopy(quantised)
    layer = other.model.layers[2].mlp.down_proj
    if isinstance(layer, Int8Linear):
        layer.weight.data[0, 0] += 1
    else:
        weight, bias = layer._packed_params._weight_bias()
        changed = weight.dequantize()
        changed[0, 0] += 3 * weight.q_scale()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            packed = torch.quantize_per_tensor(changed, weight.q_scale(), weight.q_zero_point(), torch.qint8)
        layer.set_weight_bias(packed, bias)
    expected = LanguageModel.from_hf(quantised, name="a").fingerprint
    assert LanguageModel.from_hf(same, name="b").fingerprint == expected
    assert LanguageModel.from_hf(other, name="c").fingerprint != expected


def test_its_size_counts_packed_weights(quantised):
    model = LanguageModel.from_hf(quantised, name="quantised")
    dense = LanguageModel.from_hf(llama(), name="dense")
    inside = sum(layer.numel() for name, layer in llama().named_parameters() if "_proj" in name)
    assert dense.size.parameters - model.size.parameters in range(-100, 100)
    assert model.size.weights_bytes < dense.size.weights_bytes - 2.8 * inside


def test_direct_logits_need_numbers():
    model = LanguageModel.from_hf(with_int8(llama(), everything=True), name="int8 all over")
    with pytest.raises(UserError, match="the unembedding of model 'int8 all over' is quantised"):
        model.direct_logits(torch.zeros(1, 32))


def test_what_a_state_dict_may_hold():
    plain = torch.ones(2)
    assert list(plain_tensors("a", plain)) == [("a", plain)]
    assert list(plain_tensors("a", torch.float32)) == []
    assert [name for name, _ in plain_tensors("a", (plain, None, (plain,)))] == ["a.0", "a.2.0"]
