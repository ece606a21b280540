"""What a Dictionary can't express, what contradicts itself and what is no number ends in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.exchange import random_dictionary
from saelab.dictionaries.config import Group, GroupChoice, Target
from saelab.errors import UserError
from saelab.hub.formats import named, read, recognise
from tests.hub.formats import reference
from tests.hub.formats.reference import D, F

SAELENS = {
    "skip_transcoder": ({"architecture": "skip_transcoder"}, "skip connection"),
    "temporal": ({"architecture": "temporal"}, "looks at other tokens"),
    "abstopk": ({"architecture": "abstopk"}, "negative"),
    "unknown architecture": ({"architecture": "fancy"}, "architecture 'fancy' is unknown"),
    "checkpoint": ({"architecture": "matryoshka_batchtopk"}, "save_inference_model"),
    "layer_norm": ({"normalize_activations": "layer_norm"}, "every token by itself"),
    "whitening": ({"normalize_activations": "covariance_whitening"}, "fold_activation_whitening"),
    "unknown norm": ({"normalize_activations": "new_norm"}, "'new_norm' is unknown"),
    "unknown reshape": ({"reshape_activations": "hook_q"}, "reshape_activations 'hook_q'"),
    "unknown key": ({"residual_scaling": 2}, "'residual_scaling' is not a key that saelab knows"),
    "rescaled jumprelu": ({"rescale_acts_by_decoder_norm": True}, "rescale_acts_by_decoder_norm is on"),
    "a flag that is none": ({"apply_b_dec_to_input": "yes"}, "apply_b_dec_to_input must be true or false"),
    "negative size": ({"d_sae": -4}, "d_sae must be a whole number"),
    "huge size": ({"d_in": 10**12}, "d_in must be a whole number"),
    "fractional size": ({"d_in": 5.0}, "d_in must be a whole number"),
    "other size": ({"d_sae": F + 1}, "W_enc has shape"),
    "unprintable": (
        {"metadata": reference.METADATA | {"model_name": "a\x1b[2J"}},
        "metadata: model_name must be a name",
    ),
    "metadata": ({"metadata": [1]}, "metadata must hold keys and values"),
}
SPARSIFY = {
    "groupmax": ({"activation": "groupmax"}, "activation is 'groupmax'"),
    "skip": ({"skip_connection": True}, "skip_connection is on"),
    "unknown key": ({"warp": 1}, "'warp' is not a key"),
    "k": ({"k": F + 1}, f"k must be a whole number from 1 to {F}"),
    "zero k": ({"k": 0}, "k must be a whole number"),
    "expansion": ({"num_latents": 0, "expansion_factor": 10**9}, "expansion_factor must be"),
    "other expansion": ({"num_latents": 0, "expansion_factor": 7}, "encoder.weight has shape"),
}
DICTIONARY_LEARNING = {
    "class": ({"dict_class": "IdentityDict"}, "dict_class 'IdentityDict' is unknown"),
    "k": ({"k": 5}, "k is 5, and the weights say 3"),
    "size": ({"dict_size": F + 1}, "encoder.weight has shape"),
    "other class": ({"dict_class": "AutoEncoderNew"}, "lacks the tensor decoder.bias|holds the tensor"),
}


@pytest.mark.parametrize("case", SAELENS)
def test_saelens(case: str, tmp_path: Path) -> None:
    more, words = SAELENS[case]
    reference.saelens(tmp_path, "jumprelu")
    settings = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps(settings | more))
    with pytest.raises(UserError, match=words):
        named("saelens").read(tmp_path)


@pytest.mark.parametrize("case", SPARSIFY)
def test_sparsify(case: str, tmp_path: Path) -> None:
    more, words = SPARSIFY[case]
    reference.sparsify(tmp_path, **more)
    with pytest.raises(UserError, match=words):
        named("sparsify").read(tmp_path)


@pytest.mark.parametrize("case", DICTIONARY_LEARNING)
def test_dictionary_learning(case: str, tmp_path: Path) -> None:
    more, words = DICTIONARY_LEARNING[case]
    reference.dictionary_learning(tmp_path, **more)
    with pytest.raises(UserError, match=words):
        named("dictionary-learning").read(tmp_path)


def test_num_latents_0_means_the_expansion(tmp_path: Path) -> None:
    weights = {"encoder.weight": torch.randn(4 * D, D), "encoder.bias": torch.zeros(4 * D)}
    weights |= {"W_dec": torch.randn(4 * D, D), "b_dec": torch.zeros(D)}
    reference.sparsify(tmp_path, num_latents=0, expansion_factor=4)
    save_file(weights, tmp_path / "sae.safetensors")
    assert read(tmp_path).dictionary.d_sae == 4 * D


@pytest.mark.parametrize("name", ["W_enc", "b_dec", "threshold"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(name: str, value: float, tmp_path: Path) -> None:
    reference.saelens(tmp_path, "jumprelu")
    weights = load_file(tmp_path / "sae_weights.safetensors")
    weights[name].view(-1)[3] = value
    save_file(weights, tmp_path / "sae_weights.safetensors")
    with pytest.raises(UserError, match=f"{name} holds NaN or infinite"):
        read(tmp_path)


def test_weights_of_another_kind_missing_or_too_many(tmp_path: Path) -> None:
    reference.saelens(tmp_path)
    weights = load_file(tmp_path / "sae_weights.safetensors")
    cases: dict[str, dict[str, Any]] = {
        "lacks the tensor b_enc": {name: weights[name] for name in weights if name != "b_enc"},
        "holds the tensor 'scaling_factor'": weights | {"scaling_factor": torch.ones(F)},
        "b_enc is stored as I32": weights | {"b_enc": torch.ones(F, dtype=torch.int32)},
    }
    for words, some in cases.items():
        save_file(some, tmp_path / "sae_weights.safetensors")
        with pytest.raises(UserError, match=words):
            read(tmp_path)


def test_a_backup_of_training_is_no_dictionary(tmp_path: Path) -> None:
    reference.dictionary_learning(tmp_path)
    torch.save({"ae": {"b": torch.zeros(2)}, "step": 3}, tmp_path / "ae.pt")
    with pytest.raises(UserError, match="key 'ae': it is a backup"):
        read(tmp_path)


def test_which_format(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        recognise(tmp_path / "none")
    with pytest.raises(UserError, match="no dictionary in a known format"):
        recognise(tmp_path)
    reference.saelens(tmp_path)
    reference.dictionary_learning(tmp_path)
    with pytest.raises(UserError, match="several formats \\(saelens, dictionary-learning\\)"):
        recognise(tmp_path)
    # The names of SAELens around the settings of sparsify, in a folder called after SAELens: neither.
    reference.sparsify(tmp_path / "saelens")
    (tmp_path / "saelens" / "sae.safetensors").rename(tmp_path / "saelens" / "sae_weights.safetensors")
    with pytest.raises(UserError, match="no dictionary in a known format"):
        recognise(tmp_path / "saelens")
    with pytest.raises(UserError, match="format 'sealens' is unknown; these are known: saelab, saelens"):
        named("sealens")


def supervised() -> Any:
    plain = random_dictionary("topk", 6, 4, 2)
    groups = GroupChoice(groups=(Group(name="S", values=("a", "b", "c", "d")),))
    changes = {"rule": "group", "allocation": groups, "kind": "supervised"}
    return replace(plain, config=plain.config.model_copy(update=changes))


def two_targets() -> Any:
    plain = random_dictionary("jumprelu transcoder", 6, 4, 2)
    halves = tuple(Target(site=f"blocks.{i}.mlp_out", width=3, scale=1.0) for i in (4, 5))
    return replace(plain, config=plain.config.model_copy(update={"targets": halves}))


def broken() -> Any:
    plain = random_dictionary("topk", 6, 4, 2)
    return replace(plain, b_enc=torch.full((4,), torch.nan))


def without_gain() -> Any:
    return replace(random_dictionary("gated", 6, 4, 2), gain=torch.zeros(4))


UNWRITABLE: dict[str, tuple[Callable[[], Any], tuple[str, ...], str]] = {
    "supervised": (supervised, ("saelens", "sparsify", "dictionary-learning"), "supervised"),
    "two targets": (two_targets, ("saelens",), "several targets"),
    "no numbers": (broken, ("saelens", "sparsify", "dictionary-learning", "saelab"), "b_enc holds NaN"),
    "no gain": (without_gain, ("saelens", "dictionary-learning"), "gain of 0"),
    "thresholds": (lambda: random_dictionary("mutual-choice", 6, 4, 2), ("sparsify",), "thresholds of mutual-choice"),
    "gated transcoder": (
        lambda: replace(without_gain(), config=random_dictionary("topk transcoder", 6, 4, 2).config), ("saelens",),
        "no (gated|topk) transcoder",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNWRITABLE)
def test_what_a_format_cannot_express_is_not_written(case: str, tmp_path: Path) -> None:
    make, forms, words = UNWRITABLE[case]
    for form in forms:
        with pytest.raises(UserError, match=words):
            named(form).write(make(), tmp_path / form)
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_over(tmp_path: Path) -> None:
    for form in ("saelab", "saelens", "sparsify", "dictionary-learning"):
        (tmp_path / form).mkdir()
        with pytest.raises(UserError, match="exists already"):
            named(form).write(random_dictionary("topk", 6, 8, 2), tmp_path / form)
        assert not list((tmp_path / form).iterdir())


def test_a_decoder_row_of_zero_under_rescaling(tmp_path: Path) -> None:
    reference.saelens(tmp_path, "topk", rescale_acts_by_decoder_norm=True)
    weights = load_file(tmp_path / "sae_weights.safetensors")
    weights["W_dec"][2] = 0
    save_file(weights, tmp_path / "sae_weights.safetensors")
    with pytest.raises(UserError, match="a row of W_dec is zero"):
        read(tmp_path)


def test_a_gain_beyond_fp32(tmp_path: Path) -> None:
    reference.saelens(tmp_path, "gated")
    weights = load_file(tmp_path / "sae_weights.safetensors")
    weights["r_mag"][0] = 200.0
    save_file(weights, tmp_path / "sae_weights.safetensors")
    with pytest.raises(UserError, match="gain holds NaN or infinite"):
        read(tmp_path)


def test_settings_are_bounded(tmp_path: Path) -> None:
    reference.saelens(tmp_path)
    for text, words in (
        ("[1]", "must hold keys and values, not a list"), ("{", "is damaged"), ('{"d_in": NaN}', "NaN is no number"),
        ('{"a":' * 100_000, "is damaged"), ("[" * 10**5 + "]" * 10**5, "is damaged"),
        (" " * (5 * 2**20), "too large for settings"), ('{"d_in": ' + "9" * 5000 + "}", "is damaged"),
    ):  # fmt: skip
        (tmp_path / "cfg.json").write_text(text)
        with pytest.raises(UserError, match=words):
            recognise(tmp_path)
    (tmp_path / "cfg.json").write_bytes(json.dumps({"d_in": "\xff"}, ensure_ascii=False).encode("latin-1"))
    with pytest.raises(UserError, match="is damaged"):
        recognise(tmp_path)
