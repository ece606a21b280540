"""Settings that can't be meant."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from saelab.config import as_of_now
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


def test_a_policy_of_before_looks_at_no_sinks():
    old = {"context": 64, "bos": False, "cross_documents": True, "pad": False, "exclude_special": True,
           "exclude_first": 1}  # fmt: skip
    assert as_of_now(TokenPolicy, old) == TokenPolicy(context=64).model_dump(mode="json")
    assert TokenPolicy.model_validate(old).sink_site is None


def test_the_other_split_changes_nothing_else():
    config = CorpusConfig(source="texts.txt", seed=5, held_out=0.2)
    assert config.of_split("test") == CorpusConfig(source="texts.txt", seed=5, held_out=0.2, split="test")
