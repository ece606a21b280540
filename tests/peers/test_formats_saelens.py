"""SAELens beyond single dictionaries: checkpoints, old files, heads, and its own evaluation of what we wrote."""

# pyright: reportMissingImports=false, reportCallIssue=false
from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.exchange import distance, random_dictionary, randomise
from saelab.dictionaries.dictionary import Dictionary
from saelab.hub.formats import named, read
from saelab.hub.formats.probes import decided, probes

sae_lens = pytest.importorskip("sae_lens", reason="`make peers` makes an environment that has SAELens")
pytestmark = pytest.mark.filterwarnings("ignore")
D, F, K = 24, 96, 6


def at_site(dictionary: Dictionary, site: str) -> Dictionary:
    return replace(dictionary, config=dictionary.config.model_copy(update={"site": site}))


def inputs(dictionary: Dictionary) -> torch.Tensor:
    x = probes(dictionary, 64)
    return x[decided(dictionary, x)]


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "gated"])
@pytest.mark.parametrize("centred", [True, False])
def test_a_checkpoint_of_training_with_its_factor(architecture: str, centred: bool, tmp_path: Path) -> None:
    from sae_lens.registry import get_sae_training_class

    cls, config_cls = get_sae_training_class(architecture)
    more = {"k": K, "rescale_acts_by_decoder_norm": True} if architecture == "topk" else {}
    config: Any = config_cls(
        d_in=D, d_sae=F, normalize_activations="expected_average_only_in", apply_b_dec_to_input=centred, **more
    )
    sae = cls(config)
    randomise(sae, 0)
    sae.save_model(tmp_path)
    (tmp_path / "activation_scaler.json").write_text(json.dumps({"scaling_factor": 0.3}))
    dictionary = read(tmp_path).dictionary
    assert dictionary.config.scale == pytest.approx(0.3)
    sae.fold_activation_norm_scaling_factor(0.3)
    x = inputs(dictionary)
    with torch.no_grad():
        assert distance(sae(x), dictionary(x)) < 1e-5


@pytest.mark.parametrize("activation", ["relu", "topk"])
def test_a_file_from_before_version_6(activation: str, tmp_path: Path) -> None:
    dictionary = random_dictionary(activation, D, F, K)
    named("saelens").write(dictionary, tmp_path / "it")
    old = {
        "d_in": D, "d_sae": F, "dtype": "torch.float32", "device": "cpu", "hook_point": "blocks.8.hook_resid_pre",
        "activation_fn_str": activation, "activation_fn_kwargs": {"k": K} if activation == "topk" else {},
        "normalize_activations": None, "model_name": "gpt2-small", "sae_lens_version": "4.1.0",
    }  # fmt: skip
    (tmp_path / "it" / "cfg.json").write_text(json.dumps(old))
    ours, theirs, x = read(tmp_path / "it").dictionary, sae_lens.SAE.load_from_disk(tmp_path / "it"), inputs(dictionary)
    with torch.no_grad():
        assert distance(theirs(x), ours(x)) < 1e-5
    assert ours.config.site == "blocks.8.resid_pre"
    assert theirs.cfg.metadata.hook_name == "blocks.8.hook_resid_pre"


def test_all_heads_are_flattened_as_saelens_does(tmp_path: Path) -> None:
    dictionary = at_site(random_dictionary("jumprelu", D, F, K), "blocks.3.attn.z")
    named("saelens").write(dictionary, tmp_path / "it")
    sae, x = sae_lens.SAE.load_from_disk(tmp_path / "it"), inputs(dictionary)
    with torch.no_grad():
        heads = sae(x.view(-1, 4, D // 4))
    assert heads.shape == (len(x), 4, D // 4)
    assert distance(heads.reshape(len(x), D), dictionary(x)) < 1e-5


@pytest.mark.parametrize("kind", ["mutual-choice", "feature-choice"])
def test_saelens_evaluates_what_we_write(kind: str, tiny_model: Path, tmp_path: Path) -> None:
    """L0 and explained variance by SAELens' `run_evals`, against ours on the same activations."""
    from datasets import Dataset
    from sae_lens.evals import EvalConfig, run_evals
    from sae_lens.training.activation_scaler import ActivationScaler
    from sae_lens.training.activations_store import ActivationsStore
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    torch.manual_seed(0)
    model = HookedTransformer(
        HookedTransformerConfig(
            n_layers=1, d_model=D, n_ctx=32, d_head=6, n_heads=4, d_mlp=32, act_fn="gelu", d_vocab=len(tokenizer)
        ),
        tokenizer=tokenizer,
    )  # fmt: skip
    dictionary = at_site(random_dictionary(kind, D, F, K, scale=4.0), "blocks.0.resid_post")
    policy = {"context": 16, "bos": False, "exclude_special": False, "exclude_first": 0}
    dictionary.config.policy.update(policy)
    named("saelens").write(dictionary, tmp_path / "it")
    sae = sae_lens.SAE.load_from_disk(tmp_path / "it")

    rows = torch.randint(0, len(tokenizer), (8, 16), generator=torch.Generator().manual_seed(1))
    store = ActivationsStore.from_sae(
        model, sae, Dataset.from_dict({"input_ids": rows.tolist()}), streaming=False, store_batch_size_prompts=8
    )
    metrics, _ = run_evals(
        sae, store, model, ActivationScaler(),
        EvalConfig(
            n_eval_sparsity_variance_batches=1, n_eval_reconstruction_batches=1, batch_size_prompts=8,
            compute_sparsity_metrics=True, compute_variance_metrics=True, compute_ce_loss=True, compute_kl=True,
        ),
        exclude_special_tokens=False,
    )  # fmt: skip
    _, cache = model.run_with_cache(rows)
    x = cache["blocks.0.hook_resid_post"].reshape(-1, D)
    codes = dictionary.encode(x)
    assert metrics["sparsity"]["l0"] == pytest.approx(codes.nnz / len(x), rel=1e-3)
    x_hat = dictionary.decode(codes)
    unexplained = (x - x_hat).square().sum() / (x - x.mean(0)).square().sum()
    assert metrics["reconstruction_quality"]["explained_variance"] == pytest.approx(1 - float(unexplained), rel=1e-2)
