"""Effects on the loss: each against the model run by hand, which rows are read, and going on after a stop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from saelab.corpora import CorpusConfig, pack
from saelab.dictionaries.artifact import load
from saelab.dictionaries.dictionary import Dictionary
from saelab.features import FeatureIndex, IndexConfig, build_index, effects
from saelab.features.effects import chosen_rows
from saelab.models import Intervention, LanguageModel, Site
from saelab.steering.edits import LatentEdit, by_difference
from saelab.training.origin import written_sites
from tests.features.conftest import CONTEXT, D_SAE, POLICY


def by_hand(model: LanguageModel, dictionary: Dictionary, ids: torch.Tensor, position: int, latent: int) -> float:
    """The next token's loss with the latent's code edited to 0 at one position of the row, minus the clean loss."""
    edited = by_difference(dictionary, [LatentEdit(latent=latent, mode="zero")])

    def at_position(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[:, position] = edited(x[:, position])
        return x

    clean = model.loss(ids[None])[0, position]
    with model.intervene(Intervention(Site.parse(dictionary.site), at_position)):
        return float(model.loss(ids[None])[0, position] - clean)


def text_of(model: LanguageModel, stories: CorpusConfig) -> torch.Tensor:
    return torch.cat([rows.ids for rows in pack(stories, model.tokenizer, POLICY, rows=8)])  # pyright: ignore[reportArgumentType]


def test_effects_are_those_of_whole_rows_with_one_code_edited(
    index: FeatureIndex, model: LanguageModel, random_run: tuple[Path, Dictionary], stories: CorpusConfig
) -> None:
    ids, checked, sizes = text_of(model, stories), 0, []
    for latent in (0, 9, 20, 33):
        for example in index.examples(latent, 0):
            row, position = divmod(example.token, CONTEXT)
            if position == CONTEXT - 1:
                assert example.effect is None  # no token comes after it in its row
                continue
            expected = by_hand(model, random_run[1], ids[row].long(), position, latent)
            assert example.effect == pytest.approx(expected, abs=2e-5)
            sizes.append(abs(expected))
            checked += 1
    assert checked > 20
    assert np.mean(sizes) > 0.01  # so that 2e-5 tells a right effect from none


def test_only_the_largest_activations_have_effects(index: FeatureIndex) -> None:
    assert all(e.effect is None for e in index.examples(9) if e.quantile)
    measured = index.summary["effects"]
    known = sum(e.effect is not None for latent in range(D_SAE) for e in index.examples(latent, 0))
    assert measured["examples"] == measured["of"] == known


def test_a_transcoder_has_effects_where_it_writes(
    config: IndexConfig, model: LanguageModel, make_transcoder: Callable[..., Path], stories: CorpusConfig
) -> None:
    run = make_transcoder(("blocks.1.mlp_out", "blocks.1.attn.z.head1"))
    index = FeatureIndex(build_index(config.model_copy(update={"run": run, "tokens": 900}), model))
    dictionary = load(run)
    example = next(e for e in index.examples(20, 0) if e.effect is not None)
    row, position = divmod(example.token, CONTEXT)
    ids = text_of(model, stories)[row].long()
    taken = -example.value * dictionary.decoder_directions()[20]
    sites = written_sites(dictionary.config)
    parts = taken.split([model.width(site) for site in sites])

    def adding(part: torch.Tensor):
        def add(x: torch.Tensor) -> torch.Tensor:
            x = x.clone()
            x[:, position] += part
            return x

        return add

    clean = model.loss(ids[None])[0, position]
    with model.intervene(*(Intervention(site, adding(part)) for site, part in zip(sites, parts, strict=True))):
        expected = float(model.loss(ids[None])[0, position] - clean)
    assert example.effect == pytest.approx(expected, abs=2e-5)
    assert abs(expected) > 1e-3


def test_rows_are_chosen_so_that_every_latent_gets_its_share() -> None:
    # Row 5 has latents 0 and 1, row 7 has 0 twice and 1, row 9 has 2. Rows cost 10 and one per activation.
    latent, row, first = np.array([0, 1, 0, 0, 1, 2]), np.array([5, 5, 7, 7, 7, 9]), np.zeros(6, np.int64)
    assert chosen_rows(latent, row, first, 1000, 10).tolist() == [5, 7, 9]
    # Row 7 weighs most (3) and costs 13. Then row 5 weighs 1/9 + 1/4 and row 9 a whole 1, for a latent without any.
    assert chosen_rows(latent, row, first, 13, 10).tolist() == [7]
    assert chosen_rows(latent, row, first, 13 + 12, 10).tolist() == [7, 9]
    assert chosen_rows(latent, row, first, 12, 10).tolist() == [5]  # row 7 does not fit
    assert chosen_rows(latent, row, first, 10, 10).tolist() == []
    assert chosen_rows(latent[:0], row[:0], first[:0], 10, 10).tolist() == []
    # With its activations of rank 15, which weigh a quarter, row 7 weighs 3/4: less than row 5, and than row 9.
    ranks = np.array([0, 0, 15, 15, 15, 0])
    assert chosen_rows(latent, row, ranks, 13, 10).tolist() == [5]
    assert chosen_rows(latent, row, ranks, 12 + 11, 10).tolist() == [5, 9]


def test_a_budget_bounds_the_rows_that_are_read(config: IndexConfig, model: LanguageModel, tmp_path: Path) -> None:
    some = config.model_copy(update={"tokens": 900, "effect_tokens": 300, "out": tmp_path / "some"})
    index = FeatureIndex(build_index(some, model))
    measured = index.summary["effects"]
    assert 0 < measured["rows"] * CONTEXT + measured["examples"] <= 300
    assert measured["examples"] < measured["of"]
    none = FeatureIndex(build_index(some.model_copy(update={"effect_tokens": 0, "out": tmp_path / "none"}), model))
    assert none.summary["effects"]["examples"] == 0
    assert none.examples(9)[0].effect is None


def test_a_stopped_measurement_goes_on_where_it_was(
    config: IndexConfig, model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effects, "_CACHED_NUMBERS", 2 * model.n_layers * model.d_model * CONTEXT * 5)  # 5 rows at once
    monkeypatch.setattr(effects, "_MARK_EVERY", 2)
    settings = config.model_copy(update={"tokens": 900, "out": tmp_path / "index"})
    seen: list[int] = []
    real = effects.row_effects

    def stops_in_the_fourth_chunk(plan, rows, peaks):
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(int(rows.number[0]))
        return real(plan, rows, peaks)

    monkeypatch.setattr(effects, "row_effects", stops_in_the_fourth_chunk)
    with pytest.raises(KeyboardInterrupt):
        build_index(settings, model)
    third = seen[2]
    seen.clear()
    monkeypatch.setattr(effects, "row_effects", lambda *a: (seen.append(int(a[1].number[0])), real(*a))[1])
    resumed = FeatureIndex(build_index(settings, model))
    assert seen[0] == third  # the last mark lies behind the second chunk
    whole = FeatureIndex(build_index(settings.model_copy(update={"out": tmp_path / "whole"}), model))
    for latent in range(D_SAE):
        assert [e.effect for e in resumed.examples(latent)] == [e.effect for e in whole.examples(latent)]
