"""Attention sinks are left out by every stage alike: harvest, stream, evaluation and index keep the same tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from saelab.activations import ActivationStream, Feed, HarvestConfig, ShardReader
from saelab.activations.forward import without_sinks
from saelab.activations.harvest import harvest
from saelab.activations.manifest import Manifest
from saelab.corpora import CorpusConfig, Cursor, TokenPolicy, TokenRows, pack
from saelab.dictionaries.dictionary import Dictionary
from saelab.disk import ActivationPaths
from saelab.disk.tensors import read_tensors
from saelab.errors import UserError
from saelab.evaluation import EvaluateConfig
from saelab.evaluation.evaluate import evaluate
from saelab.features import FeatureIndex, IndexConfig, build_index
from saelab.models import LanguageModel, Site
from saelab.steering.steered import largest_activations
from tests.features.conftest import CONTEXT, WIDTH

SITE = Site.parse("blocks.0.resid_post")
POLICY = TokenPolicy(context=CONTEXT, cross_documents=False, pad=True, sink_site=str(SITE), sink_norm=8)


@pytest.fixture(scope="module")
def sinking(tokenizer: PreTrainedTokenizerFast) -> LanguageModel:
    """A model to which the letters T and h are enormous."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=CONTEXT, n_embd=WIDTH, n_layer=2, n_head=2, bos_token_id=0,
        eos_token_id=0, initializer_range=0.3,
    )  # fmt: skip
    gpt2 = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        gpt2.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids(["T", "h"])] *= 200  # type: ignore[operator]
    return LanguageModel.from_hf(gpt2, tokenizer, name="sinking")


@pytest.fixture(scope="module")
def rows(sinking: LanguageModel, stories: CorpusConfig, tokenizer: PreTrainedTokenizerFast) -> TokenRows:
    """All of the text, its sinks told by their letters."""
    (rows,) = pack(stories, tokenizer, POLICY, rows=10**4)
    (found,) = without_sinks(sinking, POLICY, [rows])
    large = torch.isin(rows.ids, torch.tensor(tokenizer.convert_tokens_to_ids(["T", "h"])))
    assert torch.equal(found.keep, rows.keep & ~large)
    assert found.counts() == rows.counts() | {"sink": int((rows.keep & large).sum())}
    assert found.counts()["sink"] > 50
    return found


@pytest.fixture
def run(
    sinking: LanguageModel, make_dictionary: Callable[..., tuple[Path, Dictionary]], tmp_path: Path
) -> tuple[Path, Dictionary]:
    """A dictionary that was made under the policy."""
    plain = make_dictionary()[1]
    described = plain.config.model_copy(
        update={
            "policy": POLICY.model_dump(mode="json"),
            "model": sinking.name,
            "model_fingerprint": sinking.fingerprint,
        }
    )
    dictionary = replace(plain, config=described)
    dictionary.save(tmp_path / "run" / "dictionary", torch.randn(4, WIDTH))
    return tmp_path / "run", dictionary


@pytest.mark.parametrize("sites", [(str(SITE),), ("blocks.1.resid_post", "blocks.0.resid_pre")])
def test_harvest_stores_what_is_kept(
    sinking: LanguageModel, stories: CorpusConfig, rows: TokenRows, tmp_path: Path, sites: tuple[str, ...]
):
    config = HarvestConfig(
        model=sinking.name, sites=sites, corpus=stories, policy=POLICY, tokens=10**5, shard_tokens=512, batch=4,
        dtype="fp32", device="cpu",
    )  # fmt: skip
    out = harvest(config, tmp_path / "activations", model=sinking)
    manifest = Manifest.load(out)
    assert len(manifest.shards) > 3
    keep = [read_tensors(ActivationPaths(out).tokens(number))["keep"] for number in range(len(manifest.shards))]
    assert torch.equal(torch.cat(keep), rows.keep.flatten())
    assert list(manifest.sites) == [str(site) for site in sorted(map(Site.parse, sites))]
    reader = ShardReader(out, [Feed(Site.parse(sites[0]))], buffer_tokens=512, device="cpu", seed=0)
    assert reader.n_tokens == rows.n_kept


def test_the_stream_delivers_what_is_kept_wherever_it_begins(
    sinking: LanguageModel, stories: CorpusConfig, rows: TokenRows
):
    site = Site.parse("blocks.1.resid_post")
    truth = sinking.activations(rows.ids, [site])[site][rows.keep]

    def stream() -> ActivationStream:
        return ActivationStream(sinking, stories, POLICY, [Feed(site)], buffer_tokens=256, rows=4)

    assert stream().n_tokens == rows.n_kept
    batches = [batch for (batch,) in islice(stream().batches(64, 0), 24)]
    for batch in batches:
        torch.testing.assert_close(batch.x, truth[batch.tokens % rows.n_kept], rtol=1e-4, atol=1e-4)
    assert len(torch.cat([batch.tokens for batch in batches]).unique()) == 24 * 64
    later = [batch for (batch,) in islice(stream().batches(64, 0, start=19), 5)]
    assert all(torch.equal(one.tokens, two.tokens) for one, two in zip(batches[19:], later, strict=True))


def test_the_index_holds_what_is_kept(
    sinking: LanguageModel, stories: CorpusConfig, rows: TokenRows, run: tuple[Path, Dictionary]
):
    config = IndexConfig(run=run[0], corpus=stories, tokens=10**6, batch=8)
    index = FeatureIndex(build_index(config, sinking))
    assert index.summary["n_tokens"] == rows.n_kept
    kept = rows.keep.flatten().numpy()
    tokens = np.unique(np.concatenate([index.activations(latent).token for latent in range(run[1].d_sae)]))
    assert np.array_equal(tokens, np.flatnonzero(kept))


def test_evaluation_counts_what_is_kept(
    sinking: LanguageModel, stories: CorpusConfig, tokenizer: PreTrainedTokenizerFast, run: tuple[Path, Dictionary]
):
    text = stories.model_copy(update={"held_out": 0.5})
    settings: dict[str, Any] = {"corpus": text, "tokens": 10**5, "batch_rows": 8, "suites": ("sparsity",)}
    config = EvaluateConfig(runs=[run[0]], device="cpu", **settings)
    (report,) = evaluate(config, sinking)
    packed = pack(text.of_split("test"), tokenizer, POLICY, rows=3)
    kept = list(without_sinks(sinking, POLICY, packed))
    assert sum(chunk.counts()["sink"] for chunk in kept) > 20
    assert report.about.tokens == sum(chunk.n_kept for chunk in kept)
    assert (report.about.token_policy or {})["sink_site"] == str(SITE)


def test_units_of_steering_are_of_kept_tokens(
    sinking: LanguageModel, stories: CorpusConfig, tokenizer: PreTrainedTokenizerFast, run: tuple[Path, Dictionary],
    rows: TokenRows,
):  # fmt: skip
    packed = pack(stories, tokenizer, POLICY, rows=8)
    units = largest_activations(sinking, run[1], without_sinks(sinking, POLICY, packed))
    codes = run[1].encode(sinking.activations(rows.ids, [SITE])[SITE][rows.keep]).to_dense()
    torch.testing.assert_close(units, codes.max(0).values, rtol=1e-4, atol=1e-4)


def test_a_site_that_is_not_there_is_refused(sinking: LanguageModel):
    for named, said in (("blocks.7.resid_post", "isn't in model"), ("nowhere", "nowhere")):
        with pytest.raises(UserError, match=said):
            without_sinks(sinking, TokenPolicy(context=8, sink_site=named), [])


def test_without_a_site_the_model_is_not_run(rows: TokenRows):
    policy = TokenPolicy(context=CONTEXT)
    assert list(without_sinks(None, policy, [rows])) == [rows]  # type: ignore[arg-type]
    assert rows.start == Cursor()
