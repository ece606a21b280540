"""Models that are only partly in memory, or that somebody placed: same numbers, same fingerprint."""

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from saelab.errors import UserError
from saelab.models import Intervention, LanguageModel, Site
from saelab.models.site import KINDS
from tests.models.conftest import FAMILIES, Pair, built
from tests.models.test_loading import word_tokenizer

CLOSE: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}
SITE = Site(1, "resid_post")


@pytest.fixture(scope="module", params=[name for name in FAMILIES if name != "neox-sequential"])
def stored(request, tmp_path_factory):
    """A family's tiny model as a folder, and the pair it came from."""
    family = built(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    family.plain.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder, family


def kinds(family: Pair) -> list[str]:
    return [kind for kind in KINDS if kind in family.taps(family.plain, 1)]


def on_disk(model: LanguageModel) -> set[str]:
    weights = model._bridge._bridge.original_model.state_dict()
    return {name.replace("._original_component", "") for name, tensor in weights.items() if tensor.is_meta}


def test_what_lies_behind_the_last_site_stays_on_the_disk(stored):
    folder, family = stored
    model, whole = LanguageModel.load(folder, device="cpu", up_to=1), LanguageModel.load(folder, device="cpu")
    left = on_disk(model)
    assert any(".2." in name for name in left)
    assert not any(".0." in name or ".1." in name for name in left)
    assert ("lm_head.weight" in left) == (not family.plain.config.tie_word_embeddings)
    assert on_disk(whole) == set()
    assert model.fingerprint == whole.fingerprint == family.model.fingerprint
    assert model.size == whole.size
    tokens, sites = family.tokens(), [Site(1, kind) for kind in kinds(family)]  # pyright: ignore[reportArgumentType]
    found, expected = model.activations(tokens, sites), whole.activations(tokens, sites)
    assert all(torch.equal(found[site], expected[site]) for site in sites)


def test_what_is_on_the_disk_is_computed_all_the_same(stored):
    folder, family = stored
    model = LanguageModel.load(folder, device="cpu", up_to=0)
    tokens, site = family.tokens(), Site(2, "resid_pre")
    assert_close(model.logits(tokens), family.model.logits(tokens), **CLOSE)
    found, gradients = model.activations_and_gradients(tokens, [site])
    expected, expected_gradients = family.model.activations_and_gradients(tokens, [site])
    assert_close(found[site], expected[site], **CLOSE)
    assert_close(gradients[site], expected_gradients[site], **CLOSE)
    with model.intervene(Intervention(Site(2, "z"), lambda z: 0 * z)):
        changed = model.logits(tokens)
    with family.model.intervene(Intervention(Site(2, "z"), lambda z: 0 * z)):
        assert_close(changed, family.model.logits(tokens), **CLOSE)
    directions = torch.randn(3, model.d_model, generator=torch.Generator().manual_seed(1))
    assert_close(model.direct_logits(directions), family.model.direct_logits(directions), **CLOSE)
    assert any(".2." in name for name in on_disk(model))  # and it stays there


def test_blocks_in_memory_have_no_hooks_that_cost_time(stored):
    folder, _ = stored
    model = LanguageModel.load(folder, device="cpu", up_to=1)
    hooked = [
        name for name, module in model._bridge._bridge.original_model.named_modules() if hasattr(module, "_hf_hook")
    ]
    assert hooked
    assert not any(".0." in name or ".1." in name for name in hooked)


def test_a_reader_of_bf16_that_leaves_blocks_on_the_disk(stored):
    folder, _ = stored
    part = LanguageModel.load(folder, device="cpu", dtype="bfloat16", up_to=0)
    assert part.fingerprint == LanguageModel.load(folder, device="cpu").fingerprint
    assert part.logits(torch.tensor([[1, 2, 3]])).dtype == torch.bfloat16


def test_nothing_is_left_out_where_all_is_needed(stored):
    folder, family = stored
    model = LanguageModel.load(folder, device="cpu", up_to=2)
    assert on_disk(model) <= {"lm_head.weight"}
    assert_close(model.logits(family.tokens()), family.model.logits(family.tokens()), **CLOSE)


@pytest.mark.parametrize("place", ["cpu", "disk", "embedding on disk"])
def test_a_device_map(stored, place):
    folder, family = stored
    if place == "cpu":
        device_map: Any = {"": "cpu"}
    else:
        names = [
            name
            for name, _ in family.plain.named_modules()
            if name.count(".") == 2 and name.endswith((".0", ".1", ".2"))
        ]
        stack = names[0].rsplit(".", 1)[0]
        base = stack.split(".")[0]
        rest = [
            f"{base}.{name}" for name, _ in getattr(family.plain, base).named_children() if f"{base}.{name}" != stack
        ]
        device_map = dict.fromkeys([*rest, *names, "lm_head"], "cpu") | {names[1]: "disk"}
        if place != "disk":
            device_map[rest[0]] = "disk"
            if family.plain.config.tie_word_embeddings:
                device_map["lm_head"] = "disk"
    model = LanguageModel.load(folder, device_map=device_map)
    assert model.device == torch.device("cpu")
    assert bool(on_disk(model)) == (place != "cpu")
    assert model.fingerprint == family.model.fingerprint
    tokens = family.tokens()
    sites = [Site(layer, kind) for layer in range(3) for kind in kinds(family)]  # pyright: ignore[reportArgumentType]
    found, expected = model.activations(tokens, sites), family.model.activations(tokens, sites)
    for site in sites:
        assert_close(found[site], expected[site], **CLOSE)
    assert_close(model.loss(tokens), family.model.loss(tokens), **CLOSE)
    _, gradients = model.activations_and_gradients(tokens, [SITE])
    assert_close(gradients[SITE], family.model.activations_and_gradients(tokens, [SITE])[1][SITE], **CLOSE)
    assert torch.equal(model.generate(tokens, 3, temperature=0), family.model.generate(tokens, 3, temperature=0))


def test_auto_puts_what_fits_on_the_one_device(stored, monkeypatch):
    folder, family = stored
    model = LanguageModel.load(folder, device_map="auto")
    assert_close(model.logits(family.tokens()).cpu(), family.model.logits(family.tokens()), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_chosen_attention_computes_the_same(stored, attention, monkeypatch):
    folder, family = stored
    if attention == "sdpa" and family.model.name == "tiny-gemma2":
        with pytest.raises(UserError, match=r"model .* can't be loaded: .*scaled_dot_product_attention"):
            LanguageModel.load(folder, device="cpu", attn_implementation=attention)
        return
    calls, fused = [], torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or fused(*a, **k)
    )
    model = LanguageModel.load(folder, device="cpu", attn_implementation=attention)
    tokens = family.tokens()
    found = model.activations(tokens, [SITE])[SITE]
    assert bool(calls) == (attention == "sdpa")
    assert model.size.fused_attention == (attention == "sdpa")
    assert model.fingerprint == family.model.fingerprint
    assert_close(found, family.model.activations(tokens, [SITE])[SITE], **CLOSE)


def test_attention_that_is_not_there(stored):
    with pytest.raises(UserError, match="can't be loaded: .*no_such_attention"):
        LanguageModel.load(stored[0], device="cpu", attn_implementation="no_such_attention")


def test_a_block_missing_from_the_file_is_missed_though_it_is_not_needed(stored):
    folder, _ = stored
    file = folder / "model.safetensors"
    before = file.read_bytes()
    tensors = load_file(file)
    gone = next(name for name in sorted(tensors) if ".2." in name and name.endswith("weight"))
    save_file({name: tensor.clone() for name, tensor in tensors.items() if name != gone}, file, {"format": "pt"})
    try:
        with pytest.raises(UserError, match=r"has no weights for .*\.2\."):
            LanguageModel.load(folder, device="cpu", up_to=0)
    finally:
        file.write_bytes(before)


def test_the_config_still_decides_the_fingerprint(stored, tmp_path):
    folder, _ = stored
    expected = LanguageModel.load(folder, device="cpu", up_to=0).fingerprint
    config = json.loads((folder / "config.json").read_text())
    try:
        (folder / "config.json").write_text(json.dumps(config | {"initializer_range": 0.5}))
        assert LanguageModel.load(folder, device="cpu", up_to=0).fingerprint != expected
    finally:
        (folder / "config.json").write_text(json.dumps(config))
