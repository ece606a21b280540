"""Every number of every suite: the same whatever the batches and their order, nearly so in other number formats."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from saelab.corpora import TokenRows
from saelab.corpora.microworld.labels import LABELS
from saelab.evaluation.config import Suite
from saelab.evaluation.measure import Text, measure
from saelab.evaluation.report import FidelityReport
from saelab.models import LanguageModel

SITE = "blocks.0.resid_post"
SUITES: list[Suite] = ["fidelity", "sparsity", "labels"]
EVERY_KIND = [
    *(f"blocks.1.{kind}" for kind in ("resid_pre", "resid_mid", "resid_post", "mlp_out", "attn_out")),
    *(f"blocks.1.attn.{kind}{head}" for kind in "qkvz" for head in ("", ".head0", ".head1")),
]


def of_ids(rows: TokenRows) -> torch.Tensor:
    """Label 0 is "an even id", label 1 "an id below 10"; the others are on nothing."""
    labels = torch.zeros(*rows.ids.shape, len(LABELS), dtype=torch.bool)
    labels[..., 0] = rows.ids % 2 == 0
    labels[..., 1] = rows.ids < 10
    return labels


def numbers(model: LanguageModel, subject, chunks, suite: Suite) -> dict[str, float]:
    """All that a suite reports as one number or a list of them, but for the splice check, which sees one batch."""
    (report,) = measure(model, [subject], chunks, [suite], resamples=20, text=Text(labels=of_ids))
    flat: dict[str, float] = {}

    def add(name: str, value: object) -> None:
        if isinstance(value, dict):
            for key, part in value.items():
                add(f"{name}.{key}", part)
        elif isinstance(value, list | tuple):
            for place, part in enumerate(value):
                add(f"{name}.{place}", part)
        elif isinstance(value, int | float) and not name.endswith("splice_error"):
            flat[name] = value

    add("", report.model_dump(exclude={"about", "schema_version"}))
    return flat


@pytest.fixture(scope="module")
def subject(random_subject):
    return random_subject(SITE)


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("size", [1, 3, 10])
def test_batches_and_their_order_do_not_matter(model, cut, subject, suite: Suite, size: int):
    order = torch.randperm(10, generator=torch.Generator().manual_seed(size)).tolist()
    expected = numbers(model, subject, cut(4), suite)
    assert len(expected) > 15
    assert numbers(model, subject, cut(size, order), suite) == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.fixture(scope="module")
def in_format(model) -> Callable[[torch.dtype], LanguageModel]:
    """The tiny model of conftest.py again, in another number format."""

    def build(dtype: torch.dtype) -> LanguageModel:
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=40, n_positions=12, n_embd=16, n_layer=2, n_head=2, initializer_range=0.3,
            bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        hf: Any = GPT2LMHeadModel(config)
        hf.to(dtype)
        return LanguageModel.from_hf(hf, name="tiny")

    assert build(torch.float32).fingerprint == model.fingerprint
    return build


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-3), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("suite", ["fidelity", "sparsity"])
def test_number_formats_agree_within_their_precision(
    model, chunks, make_subject, in_format, dtype: torch.dtype, tolerance: float, suite: Suite
):
    # Thresholds far from what is decided by the last digit: the same latents fire in every format.
    eye = torch.eye(16)
    weights = torch.cat([eye, -eye])
    other = in_format(dtype)
    subjects = [
        make_subject(SITE, weights, weights, threshold=0.3, model_fingerprint=of.fingerprint) for of in (model, other)
    ]
    expected = numbers(model, subjects[0], chunks, suite)
    found = numbers(other, subjects[1], chunks, suite)
    for name in (name for name in expected if name.startswith(".metrics.")):
        if not any(word in name for word in ("histogram", "zipf", "pairs", "recovered", "underused")):
            assert found[name] == pytest.approx(expected[name], rel=tolerance, abs=tolerance), name


@pytest.mark.parametrize("site", EVERY_KIND)
def test_at_every_kind_of_site_perfect_is_perfect_and_the_error_completes(
    model, chunks, identity, random_subject, site
):
    perfect, lossy = measure(model, [identity(site), random_subject(site)], chunks, ["fidelity"], resamples=20)
    assert isinstance(perfect, FidelityReport)
    assert isinstance(lossy, FidelityReport)
    assert perfect.metrics.delta_ce == pytest.approx(0, abs=1e-5)
    assert perfect.metrics.kl == pytest.approx(0, abs=1e-5)
    assert perfect.metrics.explained_variance == pytest.approx(1, abs=1e-9)
    assert lossy.metrics.splice_error == pytest.approx(0, abs=1e-5)
    assert (lossy.metrics.kl or 0) > 1e-4


@pytest.mark.parametrize("site", ["blocks.0.attn.k", "blocks.1.attn.v.head0", "blocks.0.attn.q.head3"])
def test_where_heads_share_keys_and_values(chunks, make_subject, site):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40, max_position_embeddings=12, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = LanguageModel.from_hf(LlamaForCausalLM(config), name="grouped")
    width = model.width(make_subject(site, torch.eye(4), torch.eye(4)).site)
    weights = torch.cat([torch.eye(width), -torch.eye(width)])
    subject = make_subject(site, weights, weights, threshold=0.0, model_fingerprint=model.fingerprint)
    (report,) = measure(model, [subject], chunks, ["fidelity"], resamples=20)
    assert isinstance(report, FidelityReport)
    assert report.metrics.delta_ce == pytest.approx(0, abs=1e-5)
    assert report.metrics.kl == pytest.approx(0, abs=1e-5)
    assert report.metrics.ce_zero != pytest.approx(report.metrics.ce_clean, abs=1e-4)
