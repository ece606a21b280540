"""An index of rows that are filled up on the right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from saelab.corpora import CorpusConfig, TokenPolicy, pack
from saelab.dictionaries.dictionary import Dictionary
from saelab.errors import UserError
from saelab.features import FeatureIndex, IndexConfig, build_index
from saelab.models import LanguageModel
from tests.features.conftest import CONTEXT


def test_padding_is_counted_nowhere(
    model: LanguageModel,
    make_dictionary: Callable[..., tuple[Path, Dictionary]],
    stories: CorpusConfig,
    tmp_path: Path,
):
    policy = TokenPolicy(context=CONTEXT, cross_documents=False, pad=True)
    plain = make_dictionary()[1]
    described = plain.config.model_copy(update={"policy": policy.model_dump(mode="json")})
    replace(plain, config=described).save(tmp_path / "run" / "dictionary", torch.randn(4, plain.d_in))
    config = IndexConfig(run=tmp_path / "run", corpus=stories, tokens=10**6, batch=8)
    index = FeatureIndex(build_index(config, model))
    (rows,) = pack(stories, model.tokenizer, policy, rows=10**4)  # type: ignore[arg-type]
    assert (~rows.real).any()
    assert index.summary["n_tokens"] == rows.n_kept
    assert index.summary["n_documents"] == rows.documents.unique().numel()
    real = rows.real.flatten().numpy()
    assert all(real[index.activations(latent).token].all() for latent in range(plain.d_sae))
    short = next(i for i, row in enumerate(rows.real) if 3 < row.sum() < CONTEXT)
    length = int(rows.real[short].sum())
    window = index.window(short * CONTEXT, before=0, after=CONTEXT)
    assert window.tokens.tolist() == rows.ids[short, :length].tolist()
    expected = model.loss(rows.ids[short : short + 1, :length])[0].numpy()
    np.testing.assert_allclose(window.loss[:-1], expected, atol=1e-5)
    assert np.isnan(window.loss[-1])
    with pytest.raises(UserError, match="is padding"):
        index.window(short * CONTEXT + length)
    places = [(e.token - e.focus, len(e.tokens)) for latent in range(plain.d_sae) for e in index.examples(latent)]
    assert all(real[first : first + length].all() for first, length in places)
    assert any(not real[first + length] for first, length in places if first + length < len(real))  # cut short
