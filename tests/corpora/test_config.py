"""Settings that can't be meant."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from saelab.corpora import CorpusConfig, TokenPolicy


def test_dataset_keys_belong_to_datasets():
    with pytest.raises(ValidationError, match="dataset_split belongs to a Hugging Face dataset"):
        CorpusConfig(source="microworld", dataset_split="validation")
    assert CorpusConfig(source="hf:some/name", dataset_split="validation").dataset_split == "validation"


def test_an_empty_source_is_refused():
    with pytest.raises(ValidationError, match="must name a corpus"):
        CorpusConfig(source=" ")


def test_excluding_a_whole_row_is_refused():
    with pytest.raises(ValidationError, match="leaves nothing"):
        TokenPolicy(context=8, exclude_first=8)


def test_the_other_split_changes_nothing_else():
    config = CorpusConfig(source="texts.txt", seed=5, held_out=0.2)
    assert config.of_split("test") == CorpusConfig(source="texts.txt", seed=5, held_out=0.2, split="test")
