"""Prompts as texts, positions of roles, independence of attributes, counterfactuals, words that are not one token."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from saelab.corpora.microworld import words
from saelab.corpora.microworld.ioi import ioi_prompt
from saelab.corpora.microworld.words import PEOPLE
from saelab.errors import UserError
from saelab.evaluation.ioi.task import ATTRIBUTES, Attribute, Prompts, task
from saelab.evaluation.ioi.vocabulary import Vocabulary

PERSON = {person.name: person for person in PEOPLE}


def text(tokenizer: PreTrainedTokenizerFast, prompts: Prompts, row: int) -> str:
    return str(tokenizer.decode(prompts.ids[row, 1 : int(prompts.at["END"][row]) + 1]))


def word_at(tokenizer: PreTrainedTokenizerFast, prompts: Prompts, row: int, role: str) -> str:
    return str(tokenizer.decode(prompts.ids[row, prompts.at[role][row]])).strip()


def test_a_prompt_is_the_text_of_its_attributes(prompts: Prompts, tokenizer: PreTrainedTokenizerFast) -> None:
    for row in range(len(prompts)):
        said = text(tokenizer, prompts, row)
        io, s = prompts.names[int(prompts.io[row])], prompts.names[int(prompts.s[row])]
        template, pattern = int(prompts.template[row]), ("ABB", "BAB")[int(prompts.pos[row])]
        place = said.split(" at the ")[1].split(".")[0] if template > 1 else None
        thing = said.split(" a ")[-1].removesuffix(" to") if template > 1 else None
        assert said == ioi_prompt(PERSON[io], PERSON[s], template, pattern, place, thing).text  # type: ignore[arg-type]
        assert [word_at(tokenizer, prompts, row, role) for role in ("IO", "S1", "S2", "END")] == [io, s, s, "to"]
        assert word_at(tokenizer, prompts, row, "S1+1") in ("and", "had", "were")
        assert prompts.ids[row, 0] == tokenizer.bos_token_id
    assert prompts.io_ids.tolist() == [prompts.ids[row, prompts.at["IO"][row]] for row in range(len(prompts))]


def test_splits_share_no_place_object_or_template(tokenizer: PreTrainedTokenizerFast) -> None:
    fit, held_out = task(tokenizer, "train", 400), task(tokenizer, "test", 400)
    assert set(fit.template.tolist()) == {1, 2}
    assert set(held_out.template.tolist()) == {3}
    assert not set(fit.names) & set(held_out.names)
    train, test = (Vocabulary.of(tokenizer, split, "all") for split in ("train", "test"))
    assert not train.places.keys() & test.places.keys()
    assert not train.objects.keys() & test.objects.keys()
    assert len(train.names) == len(PEOPLE)


def test_attributes_are_independent_and_uniform(tokenizer: PreTrainedTokenizerFast) -> None:
    prompts = task(tokenizer, "train", 20_000)
    n = prompts.n_values("IO")
    expected = len(prompts) / n
    for values in (prompts.io, prompts.s):
        counts = torch.bincount(values, minlength=n).double()
        assert float(((counts - expected) ** 2 / expected).sum()) < n + 5 * (2 * n) ** 0.5  # χ² with n - 1 degrees
    assert abs(float(prompts.pos.double().mean()) - 0.5) < 0.02
    assert not (prompts.io == prompts.s).any()
    male = prompts.gender[prompts.io].double() - prompts.gender.double().mean()
    assert abs(float((male * (prompts.pos - 0.5)).mean())) < 0.01


def test_prompts_are_a_pure_function_of_the_seed(tokenizer: PreTrainedTokenizerFast) -> None:
    assert torch.equal(task(tokenizer, "train", 30, 5).ids, task(tokenizer, "train", 30, 5).ids)
    assert not torch.equal(task(tokenizer, "train", 30, 5).ids, task(tokenizer, "train", 30, 6).ids)


@given(st.sets(st.sampled_from(ATTRIBUTES)), st.integers(0, 2**31))
@settings(max_examples=30)
def test_a_counterfactual_changes_what_it_should_and_nothing_else(changed: set[Attribute], seed: int) -> None:
    tokenizer = AutoTokenizer.from_pretrained(Path(__file__).parents[3] / "artifacts" / "demo-model")
    prompts = task(tokenizer, "test", 40, names="train")
    other = prompts.counterfactual(sorted(changed), torch.Generator().manual_seed(seed))
    for attribute in ATTRIBUTES:
        assert ((other.value(attribute) != prompts.value(attribute)) == (attribute in changed)).all()
    names = torch.stack([prompts.io, prompts.s, other.io, other.s], dim=1).tolist()
    for io, s, new_io, new_s in names:
        assert new_io != new_s
        assert new_io == io or new_io not in (io, s)
        assert new_s == s or new_s not in (io, s)
    slots = torch.zeros_like(prompts.ids, dtype=torch.bool)
    for role in ("IO", "S1", "S2"):
        slots |= torch.arange(slots.shape[1]) == prompts.at[role][:, None]
    assert torch.equal(other.ids[~slots], prompts.ids[~slots])
    rows = torch.arange(len(prompts))
    assert torch.equal(other.ids[rows, other.at["IO"]], other.io_ids)
    for role in ("S1", "S2"):
        assert torch.equal(other.ids[rows, other.at[role]], other.s_ids)


def test_new_names_of_a_counterfactual_are_uniform(tokenizer: PreTrainedTokenizerFast) -> None:
    prompts = task(tokenizer, "train", 1)[torch.zeros(30_000, dtype=torch.long)]
    other = prompts.counterfactual(["IO", "S"], torch.Generator().manual_seed(0))
    for values in (other.io, other.s):
        counts = torch.bincount(values, minlength=len(prompts.names)).double()
        expected = len(prompts) / (len(prompts.names) - 2)
        assert (counts == 0).sum() == 2
        assert float((counts - expected).abs().max()) < 5 * expected**0.5 + expected * float((counts == 0).any())


def test_a_part_of_the_prompts_keeps_everything(prompts: Prompts) -> None:
    part = prompts[torch.tensor([7, 2])]
    assert len(part) == 2
    assert torch.equal(part.ids, prompts.ids[[7, 2]])
    assert all(torch.equal(part.at[role], at[[7, 2]]) for role, at in prompts.at.items())
    assert torch.equal(prompts[:3].io, prompts.io[:3])


def test_a_tokenizer_of_bytes_has_too_few_words(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    with pytest.raises(UserError, match="only 0 of 121 names are single tokens"):
        task(tokenizer, "train", 4)


def test_unknown_templates_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match="templates must be some of"):
        task(tokenizer, "train", 4, templates=(4,))


def test_gpt2s_tokenizer_holds_most_names(gpt2_tokenizer: PreTrainedTokenizerFast) -> None:
    counts = Vocabulary.of(gpt2_tokenizer, "train", "all").counts
    assert counts["names"] == (212, 241)
    assert counts["places"].kept >= 30
    prompts = task(gpt2_tokenizer, "test", 20)
    for row in range(20):
        said = text(gpt2_tokenizer, prompts, row)
        assert gpt2_tokenizer(said)["input_ids"] == prompts.ids[row, 1 : int(prompts.at["END"][row]) + 1].tolist()
    assert set(prompts.names) <= {person.name for person in words.people_half("test")}
