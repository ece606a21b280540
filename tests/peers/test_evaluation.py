"""The same dictionary on the same tokens, judged by us and by SAELens: cross-entropy, KL, L0, explained variance.

SAELens runs on transformer-lens' own reimplementation of the model, so model, dictionary and metrics are all computed
twice. Where definitions differ (docs/metrics.md, "Beside SAELens"), the test takes SAELens' numbers token by token.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from saelab.corpora import Cursor, Reason, TokenRows
from saelab.dictionaries.config import ActivationAffinity, DictionaryConfig, MutualChoice, Rule, TokenChoice
from saelab.dictionaries.dictionary import Dictionary
from saelab.evaluation.batch import Subject
from saelab.evaluation.measure import measure
from saelab.evaluation.report import FidelityMetrics, FidelityReport
from saelab.hub.formats.saelens import SaeLens
from saelab.models import LanguageModel, Site

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(find_spec("sae_lens") is None, reason="SAELens is not installed; `make peers` installs it"),
]

ROWS, CONTEXT, VOCABULARY, WIDTH, HEADS = 24, 64, 200, 32, 2
BATCHES, SEPARATOR = 4, 7
SITES = ["blocks.0.resid_post", "blocks.1.mlp_out", "blocks.0.attn_out", "blocks.1.attn.z", "blocks.1.attn.z.head1"]


def foreign(module: str) -> Any:
    """A module that only the environment of the peers has."""
    return importlib.import_module(module)


def unscaled() -> Any:
    """SAELens' scaling of activations, which leaves them as they are: ours is inside the dictionary."""
    return foreign("sae_lens.training.activation_scaler").ActivationScaler()


class Models(NamedTuple):
    """One model, twice."""

    ours: LanguageModel
    hooked: Any


class Store:
    """What SAELens' evaluation takes its tokens from: always the same batches."""

    context_size, store_batch_size_prompts = CONTEXT, ROWS // BATCHES

    def __init__(self, ids: Int[Tensor, "rows context"]) -> None:
        self._ids = ids
        self._batches: Iterator[Tensor] = iter(())
        self.reset_input_dataset()

    def reset_input_dataset(self) -> None:
        self._batches = iter(self._ids.split(self.store_batch_size_prompts))

    def get_batch_tokens(self, batch_size: int) -> Tensor:
        assert batch_size == self.store_batch_size_prompts
        return next(self._batches)


@pytest.fixture(scope="module")
def models() -> Models:
    lens = foreign("transformer_lens")
    convert = foreign("transformer_lens.pretrained.weight_conversions").convert_gpt2_weights
    torch.manual_seed(0)
    hf = GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=WIDTH, n_layer=2, n_head=HEADS,
                   initializer_range=0.2, bos_token_id=0, eos_token_id=0)
    ).eval()  # fmt: skip
    shape = lens.HookedTransformerConfig(
        n_layers=2, d_model=WIDTH, n_ctx=CONTEXT, d_head=WIDTH // HEADS, n_heads=HEADS, d_mlp=4 * WIDTH,
        d_vocab=VOCABULARY, act_fn="gelu_new", normalization_type="LN", eps=hf.config.layer_norm_epsilon, device="cpu",
    )  # fmt: skip
    hooked = lens.HookedTransformer(shape)
    weights = convert(hf, shape)
    hooked.load_state_dict({**weights, "unembed.b_U": torch.zeros(VOCABULARY)}, strict=False)
    return Models(LanguageModel.from_hf(hf, name="small"), hooked.eval())


@pytest.fixture(scope="module")
def ids() -> Int[Tensor, "rows context"]:
    drawn = torch.randint(VOCABULARY, (ROWS, CONTEXT), generator=torch.Generator().manual_seed(1))
    drawn[:, ::9] = SEPARATOR
    return drawn


@pytest.fixture(scope="module")
def make(models: Models, ids: Tensor) -> Callable[..., Dictionary]:
    """A dictionary that reconstructs something: its directions are activations of the model."""

    def build(site: str, rule: Rule = "topk") -> Dictionary:
        at = Site.parse(site)
        x = models.ours.activations(ids, [at])[at].flatten(0, 1)
        mean, scale = x.mean(0), 1 / x.std().item()
        rows = torch.nn.functional.normalize(x[:96] - mean, dim=1)
        d = models.ours.width(at)
        threshold = torch.empty(0) if rule == "topk" else torch.linspace(0.5, 1.5, len(rows))
        config = DictionaryConfig(
            architecture="topk", d_in=d, d_sae=len(rows), k=6, affinity=ActivationAffinity(),
            allocation=TokenChoice() if rule == "topk" else MutualChoice(), rule=rule, scale=scale, site=site,
            model="small", model_fingerprint=models.ours.fingerprint, tokenizer_fingerprint="",
            policy={"context": CONTEXT}, tokens_trained=0, saelab_version="0",
        )  # fmt: skip
        return Dictionary(rows, rows * 0.3, torch.full((len(rows),), -0.1), mean * scale, threshold, config)

    return build


def in_saelens(dictionary: Dictionary, folder: Path) -> Any:
    """The dictionary as SAELens has it, through the file format."""
    SaeLens().write(dictionary, folder)
    return foreign("sae_lens").SAE.load_from_disk(folder, device="cpu")


def ours(models: Models, dictionary: Dictionary, ids: Tensor, ignored: int | None = None) -> FidelityMetrics:
    excluded = torch.zeros_like(ids, dtype=torch.uint8)
    if ignored is not None:
        excluded[ids == ignored] = Reason.SPECIAL
    documents = torch.arange(ROWS)[:, None].expand_as(ids)
    rows = TokenRows(ids.int(), documents, torch.zeros_like(ids).int(), excluded, Cursor(), Cursor())
    subject = Subject("test", dictionary, Site.parse(dictionary.site))
    (report,) = measure(models.ours, [subject], [rows], ["fidelity"], resamples=2)
    assert isinstance(report, FidelityReport)
    return report.metrics


def theirs(models: Models, sae: Any, ids: Tensor, ignored: int | None = None) -> dict[str, float]:
    evals = foreign("sae_lens.evals")
    config = evals.EvalConfig(
        batch_size_prompts=ROWS // BATCHES, n_eval_reconstruction_batches=BATCHES, compute_kl=True,
        compute_ce_loss=True, n_eval_sparsity_variance_batches=BATCHES, compute_l2_norms=True,
        compute_sparsity_metrics=True, compute_variance_metrics=True,
    )  # fmt: skip
    tokens = [] if ignored is None else [ignored]
    found, _ = evals.run_evals(sae, Store(ids), models.hooked, unscaled(), config, exclude_special_tokens=tokens)
    return {name: value for part in found.values() for name, value in part.items()}


def test_the_two_models_are_one(models: Models, ids: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(models.hooked(ids), models.ours.logits(ids), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rule", ["topk", "threshold"])
@pytest.mark.parametrize("site", SITES)
def test_saelens_finds_the_same_numbers(
    models: Models, ids: Tensor, make: Callable[..., Dictionary], tmp_path: Path, site: str, rule: Rule
) -> None:
    dictionary = make(site, rule)
    mine, other = ours(models, dictionary, ids), theirs(models, in_saelens(dictionary, tmp_path / "sae"), ids)
    pairs = {
        "ce_clean": "ce_loss_without_sae",
        "ce_sae": "ce_loss_with_sae",
        "ce_zero": "ce_loss_with_ablation",
        "loss_recovered_zero": "ce_loss_score",
        "kl": "kl_div_with_sae",
        "l0": "l0",
        "explained_variance": "explained_variance",
        "cosine": "cossim",
        "bias": "relative_reconstruction_bias",
    }
    for name, theirs_is in pairs.items():
        assert getattr(mine, name) == pytest.approx(other[theirs_is], rel=0.01), name
    assert (mine.explained_variance or 1) < 0.98  # the comparison is about something
    assert mine.ce_sae != pytest.approx(mine.ce_clean, abs=1e-3)


def test_with_tokens_left_out(models: Models, ids: Tensor, make: Callable[..., Dictionary], tmp_path: Path) -> None:
    dictionary = make(SITES[0])
    mine = ours(models, dictionary, ids, SEPARATOR)
    other = theirs(models, in_saelens(dictionary, tmp_path / "sae"), ids, SEPARATOR)
    for name, theirs_is in {"ce_clean": "ce_loss_without_sae", "ce_sae": "ce_loss_with_sae", "l0": "l0",
                            "kl": "kl_div_with_sae", "explained_variance": "explained_variance"}.items():  # fmt: skip
        assert getattr(mine, name) == pytest.approx(other[theirs_is], rel=0.01), name
    # Zero ablation differs by definition: SAELens sets the tokens that are left out to zero as well.
    assert mine.ce_zero != pytest.approx(other["ce_loss_with_ablation"], rel=1e-4)


def test_kl_without_the_last_position_is_ours_to_rounding(
    models: Models, ids: Tensor, make: Callable[..., Dictionary], tmp_path: Path
) -> None:
    dictionary = make(SITES[0])
    sae = in_saelens(dictionary, tmp_path / "sae")
    recons_loss = foreign("sae_lens.evals").get_recons_loss
    kl = recons_loss(sae, models.hooked, unscaled(), ids, compute_kl=True, compute_ce_loss=False)
    assert ours(models, dictionary, ids).kl == pytest.approx(kl["kl_div_with_sae"][:, :-1].mean().item(), rel=1e-4)
