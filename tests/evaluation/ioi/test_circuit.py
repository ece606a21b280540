"""The search on the bundled model, against what its definition says about heads without anything behind them."""

import pytest
import torch

from saelab.errors import UserError
from saelab.evaluation.ioi.circuit import GPT2_SMALL, Circuit, find, is_gpt2_small, published
from saelab.evaluation.ioi.task import Prompts
from saelab.models import LanguageModel, Site


@pytest.fixture(scope="module")
def found(demo: LanguageModel, prompts: Prompts) -> Circuit:
    return find(demo, prompts, threshold=0.3, floor=0.01)


def test_the_last_layer_has_direct_effects_alone(found: Circuit) -> None:
    torch.testing.assert_close(
        found.scores["direct effect of z at END"][-1], found.scores["noising z at END"][-1], atol=1e-4, rtol=1e-3
    )


def test_nothing_reaches_receivers_from_their_own_layer_on(found: Circuit) -> None:
    movers = max(layer for layer, _ in found.heads["name movers"])
    assert found.scores["z at END through the name movers' q"][movers:].abs().max() == 0
    assert found.scores["z at END through the name movers' q"][:movers].abs().max() > 0


def test_noising_and_denoising_agree_where_one_head_does_the_work(found: Circuit) -> None:
    noising, denoising = found.scores["noising z at END"], found.scores["denoising z at END"]
    strongest = divmod(int(noising.argmax()), noising.shape[1])
    assert strongest == divmod(int(denoising.argmax()), noising.shape[1])
    assert noising[strongest] > 0.2


def test_roles_hold_the_heads_above_both_limits(found: Circuit) -> None:
    direct = found.scores["direct effect of z at END"]
    movers = found.heads["name movers"]
    assert [float(direct[head]) for head in movers] == sorted((float(direct[head]) for head in movers), reverse=True)
    assert set(movers) == {tuple(at) for at in (direct >= 0.3 * direct.max()).nonzero().tolist()}
    assert found.heads["induction and duplicate token"] == ()  # of the bundled model: S2's own token says it all


def test_cross_sections_leave_out_roles_without_heads(demo: LanguageModel, found: Circuit) -> None:
    sections = {section.name: section.nodes for section in found.cross_sections(demo)}
    assert list(sections) == ["(B)NM z", "(B)NM q", "(B)NM qk", "S-I z", "S-I v"]
    assert {node.role for node in sections["S-I v"]} == {"S2"}
    assert {(node.site.layer, node.site.head) for node in sections["(B)NM z"]} == set(found.heads["name movers"])
    assert len(sections["(B)NM qk"]) == 3 * len(sections["(B)NM q"])


def test_a_model_that_does_not_do_the_task_is_refused(narrow_gpt2: LanguageModel) -> None:
    from saelab.activations.forward import tokenizer_of
    from saelab.evaluation.ioi.task import task

    prompts = task(tokenizer_of(narrow_gpt2), "train", 4)
    worse = prompts if mean_difference(narrow_gpt2, prompts) <= 0 else exchanged(prompts)
    with pytest.raises(UserError, match="does not do the task"):
        find(narrow_gpt2, worse, 0.1, 0.01)


def mean_difference(model: LanguageModel, prompts: Prompts) -> float:
    from saelab.evaluation.ioi.nodes import outcome

    return float(outcome(model, prompts).logit_difference.mean())


def exchanged(prompts: Prompts) -> Prompts:
    """The same texts, with IO and S the wrong way round."""
    from dataclasses import replace

    return replace(prompts, io=prompts.s, s=prompts.io)


def test_the_published_circuit_needs_its_model(demo: LanguageModel) -> None:
    assert not is_gpt2_small(demo)
    with pytest.raises(UserError, match="GPT-2 small's, of 12 layers with 12 heads"):
        published(demo)


def test_the_published_cross_sections(narrow_gpt2: LanguageModel) -> None:
    sections = {section.name: section.nodes for section in published(narrow_gpt2).cross_sections(narrow_gpt2)}
    assert [len(nodes) for nodes in sections.values()] == [10, 10, 30, 4, 4, 7]
    assert sum(map(len, GPT2_SMALL.values())) == 3 + 7 + 4 + 4 + 3 + 2 + 2
    assert {str(node) for node in sections["S-I v"]} == {
        "blocks.7.attn.v.head3 at S2", "blocks.7.attn.v.head9 at S2", "blocks.8.attn.v.head6 at S2",
        "blocks.8.attn.v.head10 at S2",
    }  # fmt: skip
    assert Site.parse("blocks.0.attn.z.head10") in {node.site for node in sections["Ind+DT z"]}
