"""Import and export against the other tools' encoders written out by hand (tests/peers has the tools themselves)."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.exchange import ALLOCATIONS, random_dictionary
from saelab.dictionaries.dictionary import Dictionary
from saelab.errors import UserError
from saelab.hub.formats import FORMATS, named, placed, read, recognise
from saelab.hub.formats.format import Imported
from saelab.hub.formats.probes import decided, difference, probes
from tests.hub.formats import reference
from tests.hub.formats.reference import D, F, Forward, K

FOREIGN: dict[str, Callable[[Path, int], Forward]] = {
    **{
        f"saelens {kind}": lambda folder, seed, kind=kind: reference.saelens(folder, kind, seed)
        for kind in ("standard", "topk", "jumprelu", "gated")
    },
    **{
        f"saelens {kind}, not centred": lambda folder, seed, kind=kind: reference.saelens(
            folder, kind, seed, apply_b_dec_to_input=False
        )
        for kind in ("standard", "topk", "jumprelu", "gated")
    },
    **{
        f"saelens {kind}": lambda folder, seed, kind=kind: reference.saelens(folder, kind, seed, d_out=7)
        for kind in ("transcoder", "jumprelu_transcoder")
    },
    "saelens topk, rescaled": lambda folder, seed: reference.saelens(
        folder, "topk", seed, rescale_acts_by_decoder_norm=True
    ),
    "sparsify topk": reference.sparsify,
    "sparsify transcoder": lambda folder, seed: reference.sparsify(folder, seed, transcode=True),
    **{
        f"dictionary-learning {kind}": lambda folder, seed, kind=kind: reference.dictionary_learning(folder, kind, seed)
        for kind in reference.STATES
    },
}


def same(dictionary: Dictionary, forward: Forward, seed: int = 0) -> None:
    x = 3 * torch.randn(64, D, generator=torch.Generator().manual_seed(seed + 1000))
    x = x[decided(dictionary, x)]
    assert len(x) > 32
    torch.testing.assert_close(dictionary(x), forward(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", FOREIGN)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=5)
def test_what_is_read_computes_what_the_tool_computes(kind: str, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder) / "it"
        forward = FOREIGN[kind](there, seed)
        assert recognise(there).name == kind.split()[0]
        same(read(there).dictionary, forward, seed)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_read_as_fp32_and_said(dtype: torch.dtype, tmp_path: Path) -> None:
    forward = reference.saelens(tmp_path, "jumprelu", dtype=dtype)
    imported = read(tmp_path)
    assert imported.dictionary.W_enc.dtype == torch.float32
    assert any(str(dtype).removeprefix("torch.") in note for note in imported.notes)
    same(imported.dictionary, forward)


def test_the_factor_of_a_checkpoint_is_used(tmp_path: Path) -> None:
    forward = reference.saelens(tmp_path, "jumprelu", normalize_activations="expected_average_only_in")
    with pytest.raises(UserError, match="normalize_activations 'expected_average_only_in' needs the factor"):
        read(tmp_path)
    (tmp_path / "activation_scaler.json").write_text('{"scaling_factor": 0.25}')
    same(read(tmp_path).dictionary, lambda x: forward(0.25 * x) / 0.25)


def test_settings_before_version_6(tmp_path: Path) -> None:
    forward = reference.saelens(tmp_path, "topk")
    old = {
        "d_in": D, "d_sae": F, "dtype": "torch.float32", "hook_point": "blocks.3.attn.hook_z",
        "hook_point_head_index": 2, "activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}, "l1_coefficient": 1,
        "normalize_activations": False, "model_name": "gpt2-small", "context_size": 64, "training_tokens": 500,
        "model_from_pretrained_kwargs": {"center_writing_weights": True}, "sae_lens_version": "3.2.1",
    }  # fmt: skip
    (tmp_path / "cfg.json").write_text(json.dumps(old))
    imported = read(tmp_path)
    config = imported.dictionary.config
    same(imported.dictionary, forward)
    assert (config.site, config.model, config.k, config.tokens_trained) == ("blocks.3.attn.z.head2", "gpt2", K, 500)
    assert any("center_writing_weights" in note for note in imported.notes)
    (tmp_path / "cfg.json").write_text(json.dumps(old | {"finetuning_scaling_factor": True}))
    with pytest.raises(UserError, match="finetuning_scaling_factor"):
        read(tmp_path)


def test_what_the_files_say_of_the_place(tmp_path: Path) -> None:
    reference.saelens(tmp_path / "a", "jumprelu")
    config = read(tmp_path / "a").dictionary.config
    assert (config.site, config.model, config.imported_from) == ("blocks.4.resid_pre", "gpt2", "saelens")
    assert config.policy == {"context": 128, "bos": True, "exclude_special": False, "exclude_first": 0}
    reference.dictionary_learning(tmp_path / "b")
    config = read(tmp_path / "b").dictionary.config
    assert (config.site, config.model, config.k, config.tokens_trained) == ("blocks.2.resid_post", "gpt2", K, 80)
    assert config.architecture == "mutual-choice"
    reference.sparsify(tmp_path / "layers.7.mlp" / "seed0")
    imported = read(tmp_path / "layers.7.mlp" / "seed0")
    assert imported.dictionary.config.site == "blocks.7.mlp_out"
    assert "the files do not name the model" in imported.notes


def test_batchtopk_of_saelens_is_mutual_choice(tmp_path: Path) -> None:
    made = {"training_architecture": "batchtopk", "training_architecture_details": {"k": K}}
    reference.saelens(tmp_path, "jumprelu", metadata=reference.METADATA | made)
    assert read(tmp_path).dictionary.config.architecture == "jumprelu"  # its thresholds differ: nothing of the kind
    weights = load_file(tmp_path / "sae_weights.safetensors")
    save_file(weights | {"threshold": torch.full((F,), 0.5)}, tmp_path / "sae_weights.safetensors")
    config = read(tmp_path).dictionary.config
    assert (config.architecture, config.k) == ("mutual-choice", K)


WRITABLE = [
    (form, kind)
    for form in ("saelab", "saelens", "sparsify", "dictionary-learning")
    for kind in ALLOCATIONS
    if (form, kind) not in {("saelens", "topk transcoder"), ("sparsify", "relu transcoder")}
    and not (form == "sparsify" and kind not in ("topk", "gradient", "topk transcoder"))
    and not (form == "dictionary-learning" and kind.endswith("transcoder"))
]


@given(case=st.sampled_from(WRITABLE), d_in=st.integers(1, 30), d_sae=st.integers(2, 60), data=st.data())
@settings(max_examples=50)
def test_round_trips_are_exact(case: tuple[str, str], d_in: int, d_sae: int, data: st.DataObject) -> None:
    """The second trip changes no bit of what the first wrote, but for a logarithm and a moved centre."""
    form, kind = named(case[0]), case[1]
    dictionary = random_dictionary(
        kind,
        d_in,
        d_sae,
        data.draw(st.integers(1, d_sae)),
        data.draw(st.floats(1e-3, 1e3)),
        data.draw(st.integers(0, 99)),
    )
    with tempfile.TemporaryDirectory() as folder:
        form.write(dictionary, Path(folder) / "a")
        once = form.read(Path(folder) / "a").dictionary
        form.write(once, Path(folder) / "b")
        again = form.read(Path(folder) / "b").dictionary
    reference = dictionary if form.name == "saelab" else dictionary.folded()
    for name in ("W_enc", "W_dec", "b_dec", "threshold"):
        assert torch.equal(getattr(once, name), getattr(reference, name)), name
    unsigned = {"weights_sha256": ""}
    assert again.config.model_copy(update=unsigned) == once.config.model_copy(update=unsigned)
    atol = 1e-5 * max(1.0, float(dictionary.b_dec.norm() * dictionary.W_enc.norm()))
    for name in ("b_enc", "gain", "shift"):
        a, b, c = (getattr(each, name) for each in (again, once, reference))
        torch.testing.assert_close(a, b, rtol=1e-5, atol=atol)
        torch.testing.assert_close(b, c, rtol=1e-5, atol=atol)


def test_a_site_survives(tmp_path: Path) -> None:
    for number, site in enumerate(
        ("blocks.3.attn.z", "blocks.3.attn.q.head2", "blocks.0.mlp_out", "blocks.5.resid_mid")
    ):
        dictionary = random_dictionary("jumprelu", 6, 8, 2)
        dictionary = replace(dictionary, config=dictionary.config.model_copy(update={"site": site}))
        for form in ("saelens", "dictionary-learning"):
            named(form).write(dictionary, tmp_path / f"{form}{number}")
            assert read(tmp_path / f"{form}{number}").dictionary.config.site == site
    z, q = (json.loads((tmp_path / f"saelens{number}" / "cfg.json").read_text()) for number in (0, 1))
    assert (z["reshape_activations"], z["metadata"]["hook_head_index"]) == ("hook_z", None)
    assert (q["reshape_activations"], q["metadata"]["hook_head_index"]) == ("none", 2)


def test_the_nearest_class(tmp_path: Path) -> None:
    unit = random_dictionary("relu", 6, 8, 2)
    unit = replace(unit, W_dec=torch.nn.functional.normalize(unit.W_dec, dim=1))
    cases = {
        "AutoEncoder": unit, "AutoEncoderNew": random_dictionary("relu", 6, 8, 2),
        "BatchTopKSAE": random_dictionary("mutual-choice", 6, 8, 2),
        "JumpReluAutoEncoder": random_dictionary("feature-choice", 6, 8, 2),
        "AutoEncoderTopK": random_dictionary("gradient", 6, 8, 2),
        "GatedAutoEncoder": random_dictionary("gated", 6, 8, 2),
    }  # fmt: skip
    for kind, dictionary in cases.items():
        named("dictionary-learning").write(dictionary, tmp_path / kind)
        assert json.loads((tmp_path / kind / "config.json").read_text())["trainer"]["dict_class"] == kind


def test_a_calibrated_relu_dictionary_keeps_its_thresholds(tmp_path: Path) -> None:
    dictionary = random_dictionary("relu", 6, 8, 2)
    dictionary = replace(dictionary, threshold=torch.full((8,), 0.4))
    named("saelens").write(dictionary, tmp_path / "a")
    assert json.loads((tmp_path / "a" / "cfg.json").read_text())["architecture"] == "jumprelu"
    assert torch.equal(read(tmp_path / "a").dictionary.threshold, dictionary.threshold)


def test_a_gate_with_a_threshold(tmp_path: Path) -> None:
    dictionary = replace(random_dictionary("gated", 6, 24, 2), threshold=torch.full((24,), 0.3))
    named("saelens").write(dictionary, tmp_path / "a")
    assert difference(dictionary, read(tmp_path / "a").dictionary, probes(dictionary, 64)).largest < 1e-5


def test_placed_fills_in_what_is_unknown_and_nothing_else(tmp_path: Path) -> None:
    reference.sparsify(tmp_path / "a")
    imported = read(tmp_path / "a")
    there = placed(imported, "blocks.1.resid_post", None, "gpt2")
    assert (there.dictionary.config.site, there.dictionary.config.model) == ("blocks.1.resid_post", "gpt2")
    assert {*imported.notes} - {*there.notes} == {
        "the files do not say which site it reads", "the files do not name the model"
    }  # fmt: skip
    with pytest.raises(UserError, match="--site blocks.2.resid_post contradicts the files, which say blocks.1"):
        placed(there, "blocks.2.resid_post", None, None)
    with pytest.raises(UserError, match="--model gpt3 contradicts the files, which say gpt2"):
        placed(there, None, None, "gpt3")


@given(seed=st.integers(0, 99), scale=st.floats(0.01, 100))
def test_a_transcoder_by_word_of_the_user_computes_the_same(seed: int, scale: float) -> None:
    dictionary = random_dictionary("jumprelu", 6, 16, 2, scale, seed).to(torch.float64)
    there = placed(Imported(dictionary), None, "blocks.3.mlp_out", None).dictionary
    assert there.config.target_sites == ("blocks.3.mlp_out",)
    x = torch.randn(16, 6, dtype=torch.float64) / scale
    torch.testing.assert_close(there(x), dictionary(x), rtol=1e-8, atol=1e-8 / scale)


def test_found_by_names_alone() -> None:
    names = [
        "cfg.json", "sae_weights.safetensors", "a/cfg.json", "a/sae_weights.safetensors", "a/activation_scaler.json",
        "a/notes.txt", "b/c/cfg.json", "b/c/sae.safetensors", "d/config.json", "d/ae.pt", "e/cfg.json", "../f/cfg.json",
        "../f/sae.safetensors", "/g/cfg.json", "/g/sae.safetensors", "h/../i/cfg.json", "h/../i/sae.safetensors",
        "r/dictionary/config.json", "r/dictionary/dictionary.safetensors", "r/dictionary/golden.safetensors",
    ]  # fmt: skip
    found = {form.name: {entry.id: entry.files for entry in form.found(names)} for form in FORMATS}
    assert found["saelens"] == {
        "": ("cfg.json", "sae_weights.safetensors"),
        "a": ("a/cfg.json", "a/sae_weights.safetensors", "a/activation_scaler.json"),
    }
    assert [*found["sparsify"]] == ["b/c"]
    assert [*found["dictionary-learning"]] == ["d"]
    assert [*found["saelab"]] == ["r/dictionary"]


def test_probes_make_latents_fire_and_are_the_same_every_time() -> None:
    for kind in ALLOCATIONS:
        dictionary = random_dictionary(kind, 16, 64, 4, scale=0.01)
        if dictionary.threshold.numel():
            dictionary = replace(dictionary, threshold=dictionary.threshold * 50)
        x = probes(dictionary, 32)
        assert torch.equal(x, probes(dictionary, 32))
        assert dictionary.encode(x).nnz >= 32


def test_difference_sees_what_is_wrong() -> None:
    dictionary: Any = random_dictionary("jumprelu", 8, 32, 4)
    x: Tensor = probes(dictionary, 64)
    assert difference(dictionary, dictionary, x) == (0.0, 64, 0)
    off = replace(dictionary, b_dec=dictionary.b_dec + 0.01)
    expected = ((dictionary(x) - off(x)).norm(dim=1) / dictionary(x).norm(dim=1)).max()
    assert difference(dictionary, off, x).largest == pytest.approx(float(expected), rel=1e-4)
