"""The model running beside the training."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import pytest
import torch

from saelab.activations import ActivationStream, Feed
from saelab.corpora import CorpusConfig, TokenPolicy, TokenRows, pack
from saelab.errors import UserError
from saelab.models import LanguageModel, Site
from tests.activations.conftest import POLICY, SITE

Make = Callable[..., ActivationStream]


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch, model: LanguageModel) -> list[int]:
    """Rows of each forward pass that is made from here on."""
    seen: list[int] = []
    run = model.activations
    monkeypatch.setattr(model, "activations", lambda ids, sites: (seen.append(len(ids)), run(ids, sites))[1])
    return seen


def test_a_far_batch_runs_the_model_on_its_own_group_only(stream: Make, forwards: list[int]):
    next(stream().batches(100, seed=0, start=25))
    # a group is 1000 kept tokens, about 31 to each row of 32: 33 or so rows, which touch five or six passes of 8
    assert len(forwards) <= 6


def test_a_sample_is_not_computed_again_for_training(stream: Make, forwards: list[int]):
    source = stream()
    source.sample(400)
    made = len(forwards)
    next(source.batches(100, seed=0))
    assert sum(forwards) <= 48
    assert len(forwards) > made  # the rest of the group was added to what was there


def test_bookmarks_spare_the_way(stream: Make, monkeypatch: pytest.MonkeyPatch):
    walked = stream()
    (batch,) = list(islice(walked.batches(100, seed=0), 26))[25]
    begun = stream()
    begun.bookmarks = walked.bookmarks
    starts: list[int] = []

    def noted(*arguments: object, **options: object):
        for rows in pack(*arguments, **options):  # type: ignore[arg-type]
            starts.append(rows.start.row)
            yield rows

    monkeypatch.setattr("saelab.activations.stream.pack", noted)
    monkeypatch.setattr(begun, "_available", lambda n: n)
    assert torch.equal(next(begun.batches(100, seed=0, start=25))[0].x, batch.x)
    assert min(starts) >= 50  # 25 groups of 100 tokens lie before; without bookmarks it starts at row 0


def test_an_endless_corpus_has_no_size(stream: Make):
    source = stream(corpus=CorpusConfig())
    assert source.n_tokens is None
    assert source.sample(3000)[0].x.shape == (3000, 16)


def test_a_finite_corpus_is_counted(stream: Make, model: LanguageModel, text: CorpusConfig):
    packed: list[TokenRows] = list(pack(text, model.tokenizer, POLICY))  # type: ignore[arg-type]
    assert stream().n_tokens == sum(int(rows.keep.sum()) for rows in packed)


def test_epochs_repeat_the_text(stream: Make):
    source = stream(buffer_tokens=5000)
    assert source.n_tokens is not None
    tokens = [batch.tokens for (batch,) in islice(source.batches(5000, seed=0), 2 * source.n_tokens // 5000 + 1)]
    assert torch.cat(tokens).max() >= source.n_tokens  # running numbers go on …
    x: dict[int, torch.Tensor] = {}
    for (batch,) in islice(source.batches(5000, seed=0), 4):
        x |= dict(zip(batch.tokens.tolist(), batch.x, strict=True))
    assert torch.equal(x[7], x[7 + source.n_tokens])  # … and name the same token again


def test_a_policy_that_keeps_nothing_is_refused(model: LanguageModel, tmp_path):
    (tmp_path / "t.txt").write_text("<|end|>" * 500)  # nothing but special tokens
    corpus = CorpusConfig(source=str(tmp_path / "t.txt"), held_out=1e-9)
    with pytest.raises(UserError, match="excludes every token"):
        ActivationStream(model, corpus, POLICY, [Feed(SITE)]).batches(10, seed=0)


def test_rows_longer_than_the_models_context_are_refused(stream: Make):
    with pytest.raises(UserError, match=r"policy\.context = 64 exceeds"):
        stream(policy=TokenPolicy(context=64))


def test_a_site_that_is_not_there_is_refused(stream: Make):
    with pytest.raises(UserError, match=r"blocks\.7\.resid_post isn't in model"):
        stream(Feed(SITE), Feed(Site.parse("blocks.7.resid_post")))


def test_a_model_without_a_tokenizer_is_refused(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch, text: CorpusConfig
):
    monkeypatch.setattr(model, "tokenizer", None)
    with pytest.raises(UserError, match="without a tokenizer"):
        ActivationStream(model, text, POLICY, [Feed(SITE)])
