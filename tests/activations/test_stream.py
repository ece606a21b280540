"""The model running beside the training."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

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

    monkeypatch.setattr("saelab.activations.pieces.pack", noted)
    monkeypatch.setattr(begun, "_available", lambda n: n)
    assert torch.equal(next(begun.batches(100, seed=0, start=25))[0].x, batch.x)
    assert min(starts) >= 50  # 25 groups of 100 tokens lie before; without bookmarks it starts at row 0


def test_the_model_runs_ahead_and_no_further_than_there_is_room(overlapped: Make, forwards: list[int]):
    """A group of 1000 and what is delivered of it, two passes that wait, and one in the thread's hands."""
    batches = overlapped().batches(100, seed=0)
    for number in range(25):
        next(batches)
        time.sleep(0.05)  # let it run as far as it goes
        delivered = 100 * (number + 1)
        assert sum(forwards) * 31 <= 1000 + delivered + 4 * 8 * 32
        if delivered % 1000 > 400:
            assert sum(forwards) * 31 > 1000 + delivered // 1000 * 1000  # the next group is on its way


def test_a_group_is_made_when_it_is_wanted_where_nothing_overlaps(stream: Make, forwards: list[int]):
    batches = stream().batches(100, seed=0)
    made = [(next(batches), sum(forwards))[1] for _ in range(20)]
    assert made[0] == made[9] < made[10] == made[19]


def test_memory_is_that_of_one_group(overlapped: Make):
    source = overlapped()
    for _ in islice(source.batches(100, seed=0), 35):
        assert source._ring.rows is not None
        assert len(source._ring.rows) == 1000


@pytest.mark.parametrize("overlap", [True, False])
def test_bookmarks_lead_to_the_batch_that_is_next(stream: Make, overlap: bool):
    """Wherever a training stops, the places it saved are enough to find its group again."""
    walked = stream(overlap=overlap)
    batches = walked.batches(100, seed=0)
    for number in range(34):
        (batch,) = next(batches)
        if number % 5 == 3:
            begun = stream(overlap=not overlap)
            begun.bookmarks = list(walked.bookmarks)
            assert (
                max(place.kept for place in begun.bookmarks if place.kept <= number * 100) >= number // 10 * 1000 - 248
            )
            assert torch.equal(next(begun.batches(100, seed=0, start=number))[0].x, batch.x)


def test_dropping_a_stream_ends_its_threads(overlapped: Make):
    before = threading.active_count()
    source = overlapped()
    batches = source.batches(100, seed=0)
    next(batches)
    assert threading.active_count() > before
    del batches, source
    assert threading.active_count() == before


def test_an_error_of_the_thread_is_raised_where_batches_are_wanted(
    overlapped: Make, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
):
    batches = overlapped().batches(100, seed=0)
    next(batches)

    def broken(*arguments: object):
        raise UserError("out of memory")

    monkeypatch.setattr(model, "activations", broken)
    with pytest.raises(UserError, match="out of memory"):
        list(islice(batches, 30))


def test_a_process_may_end_while_its_stream_is_at_work(tiny_model: Path, text: CorpusConfig):
    script = f"""
from saelab.activations import ActivationStream, Feed
from saelab.corpora import CorpusConfig, TokenPolicy
from saelab.models import LanguageModel, Site
model = LanguageModel.load({str(tiny_model)!r}, device="cpu")
feeds = [Feed(Site.parse("blocks.0.resid_post"))]
stream = ActivationStream(
    model, CorpusConfig(source={text.source!r}), TokenPolicy(context=32), feeds, buffer_tokens=1000, overlap=True
)
batches = stream.batches(100, seed=0)
next(batches)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "")


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
    with pytest.raises(UserError, match="has no tokenizer"):
        ActivationStream(model, text, POLICY, [Feed(SITE)])
