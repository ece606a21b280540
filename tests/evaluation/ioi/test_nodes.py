"""Patches: a node's own activation changes nothing, all of the last layer's END changes everything, rests are exact."""

import pytest
import torch

from saelab.evaluation.ioi.behaviour import behaviour
from saelab.evaluation.ioi.nodes import Node, Outcome, activations_at, outcome
from saelab.evaluation.ioi.patching import CleanRun
from saelab.evaluation.ioi.task import Prompts
from saelab.models import LanguageModel, Site


def node(site: str, role: str) -> Node:
    return Node(Site.parse(site), role)


NODES = [
    node("blocks.1.attn.v.head2", "S2"), node("blocks.2.attn.z.head0", "END"), node("blocks.2.attn.q.head3", "END"),
    node("blocks.2.resid_post", "S1+1"), node("blocks.3.attn.k.head1", "IO"), node("blocks.2.attn.z.head0", "S2"),
]  # fmt: skip


@pytest.fixture(scope="module")
def other(prompts: Prompts) -> Prompts:
    return prompts.counterfactual(["IO", "S", "Pos"], torch.Generator().manual_seed(0))


def test_activations_are_those_at_the_role(demo: LanguageModel, prompts: Prompts) -> None:
    found = activations_at(demo, prompts, NODES, batch=5)
    for wanted in NODES:
        whole = demo.activations(prompts.ids, [wanted.site])[wanted.site]
        for row, at in enumerate(prompts.at[wanted.role].tolist()):
            torch.testing.assert_close(found[wanted][row], whole[row, at], atol=1e-4, rtol=1e-4)


def test_a_nodes_own_activation_changes_nothing(demo: LanguageModel, prompts: Prompts) -> None:
    clean = outcome(demo, prompts)
    assert (clean.predicted == prompts.io_ids).all()  # the model knows the training half of the names
    patched = outcome(demo, prompts, activations_at(demo, prompts, NODES), batch=5)
    torch.testing.assert_close(patched.logit_difference, clean.logit_difference, atol=1e-3, rtol=1e-4)


def test_the_last_residual_at_the_end_is_the_whole_answer(
    demo: LanguageModel, prompts: Prompts, other: Prompts
) -> None:
    last = node("blocks.3.resid_post", "END")
    patched = outcome(demo, prompts, activations_at(demo, other, [last]))
    assert torch.equal(patched.predicted, outcome(demo, other).predicted)
    assert not torch.equal(patched.predicted, outcome(demo, prompts).predicted)


@pytest.mark.parametrize("chosen", [[0], [1, 2], [3], [4, 0, 1], list(range(6))], ids=str)
def test_a_kept_clean_run_gives_the_same_answers(
    demo: LanguageModel, prompts: Prompts, other: Prompts, chosen: list[int]
) -> None:
    patches = activations_at(demo, other, [NODES[number] for number in chosen])
    run = CleanRun(demo, prompts, {at.role for at in patches}, batch=5)
    for some in (patches, {}, patches):
        expected, found = outcome(demo, prompts, some), run.outcome(some)
        assert torch.equal(found.predicted, expected.predicted)
        torch.testing.assert_close(found.logit_difference, expected.logit_difference, atol=1e-3, rtol=1e-4)


def test_activations_under_a_patch(demo: LanguageModel, prompts: Prompts, other: Prompts) -> None:
    whole = Node(Site(1, "resid_post"), "END")
    after = node("blocks.3.attn.q.head0", "END")
    patches = activations_at(demo, other, [whole])
    found = CleanRun(demo, prompts, ["END"], batch=5).activations([after, whole], patches)
    torch.testing.assert_close(found[whole], patches[whole])
    assert not torch.allclose(found[after], activations_at(demo, prompts, [after])[after])
    unpatched = CleanRun(demo, prompts, ["END"]).activations([after])
    torch.testing.assert_close(unpatched[after], activations_at(demo, prompts, [after])[after], atol=1e-4, rtol=1e-4)


def test_behaviour_by_template_and_pattern(prompts: Prompts) -> None:
    four = prompts[:4]
    four = Prompts(
        ids=four.ids, at=four.at, io=torch.tensor([0, 1, 2, 3]), s=torch.tensor([4, 5, 6, 7]),
        pos=torch.tensor([0, 0, 1, 0]), template=torch.tensor([1, 1, 1, 2]), names=four.names,
        name_ids=torch.arange(len(four.names)), gender=four.gender,
    )  # fmt: skip
    answers = Outcome(torch.tensor([0, 9, 2, 7]), torch.tensor([2.0, 1.0, -3.0, 4.0]))
    found = {(part.template, part.pattern): tuple(part[2:]) for part in behaviour(four, answers)}
    assert found == {
        (None, None): (4, 0.5, 0.75, 1.0),
        (1, "ABB"): (2, 0.5, 1.0, 1.5),
        (1, "BAB"): (1, 1.0, 0.0, -3.0),
        (2, "ABB"): (1, 0.0, 1.0, 4.0),
    }
