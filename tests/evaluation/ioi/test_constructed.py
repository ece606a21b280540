"""Constructed activations whose answer is known: the vectors come back, sufficiency is 1, edits are exact."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from saelab.evaluation.ioi.approximation import Reference, approximate
from saelab.evaluation.ioi.control import agreement, control
from saelab.evaluation.ioi.edits import greedy_path, guided_path
from saelab.evaluation.ioi.properties import PropertyTable
from saelab.evaluation.ioi.supervised import Design, Method, Parametrisation, Supervised, fit
from saelab.evaluation.ioi.task import ATTRIBUTES, Attribute, Prompts
from saelab.evaluation.ioi.toys import unwritten_prompts
from tests.evaluation.ioi.readout import N_NAMES, NODE, Sums, all_prompts

METHODS: tuple[Method, ...] = ("mean", "mse")
PARAMETRISATIONS: tuple[Parametrisation, ...] = ("independent", "coupled")


@pytest.fixture(scope="module")
def truth() -> Sums:
    return Sums.make()


@pytest.fixture(scope="module")
def prompts() -> Prompts:
    return unwritten_prompts(400, N_NAMES, torch.Generator().manual_seed(1))


def changed(prompts: Prompts, attribute: Attribute) -> Prompts:
    """Another value of one attribute, never a name that the prompt has."""
    others = (prompts.io + 1 + (prompts.s == (prompts.io + 1) % N_NAMES).long()) % N_NAMES
    field = {"IO": {"io": others}, "S": {"s": others}, "Pos": {"pos": 1 - prompts.pos}}[attribute]
    return replace(prompts, **field)


@pytest.mark.parametrize("method", METHODS)
def test_the_vectors_come_back(truth: Sums, method: Method) -> None:
    balanced = all_prompts()
    found = fit(Design.of(balanced), truth.activations(balanced), method)
    torch.testing.assert_close(found.bias, truth.offset)
    torch.testing.assert_close(found.vectors, torch.cat([truth.parts[a] for a in ATTRIBUTES]))


@pytest.mark.parametrize("method", METHODS)
def test_noise_averages_out(truth: Sums, method: Method) -> None:
    many = unwritten_prompts(40_000, N_NAMES, torch.Generator().manual_seed(2))
    found = fit(Design.of(many), truth.activations(many, noise=0.5), method)
    true = torch.cat([truth.parts[a] for a in ATTRIBUTES])
    # IO and S are never the same name, so the mean of one holds -1/5 of the other; least squares sees through that.
    tolerance = {"mean": 0.35, "mse": 0.02}[method]
    assert float((found.vectors - true).norm() / true.norm()) < tolerance


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_least_squares_edits_are_exact(
    truth: Sums, prompts: Prompts, parametrisation: Parametrisation, attribute: Attribute
) -> None:
    x = truth.activations(prompts, noise=0.1)
    noise = x - truth.activations(prompts)
    found = fit(Design.of(prompts, parametrisation), truth.activations(prompts))
    target = changed(prompts, attribute)
    torch.testing.assert_close(found.edit(x, prompts, target), truth.activations(target) + noise)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_not_linearly_there_has_no_vector(truth: Sums, method: Method) -> None:
    # Pos is there only in what it makes of IO: u_IO changes its sign with it. On average over either, nothing.
    balanced = all_prompts()
    sign = (1 - 2 * balanced.pos)[:, None]
    x = truth.offset + sign * truth.parts["IO"][balanced.io] + truth.parts["S"][balanced.s]
    found = fit(Design.of(balanced), x, method).vectors
    assert float(found[:N_NAMES].abs().max()) < 1e-12
    assert float(found[-2:].abs().max()) < 1e-12
    torch.testing.assert_close(found[N_NAMES:-2], truth.parts["S"])


def test_coupled_vectors_hold_what_independent_ones_miss(truth: Sums) -> None:
    balanced = all_prompts()
    sign = (1 - 2 * balanced.pos)[:, None]
    x = truth.offset + sign * truth.parts["IO"][balanced.io]
    found = fit(Design.of(balanced, "coupled"), x)
    target = changed(balanced, "Pos")
    torch.testing.assert_close(found.edit(x, balanced, target), 2 * truth.offset - x)


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
def test_least_squares_is_sufficient_and_necessary(
    truth: Sums, prompts: Prompts, parametrisation: Parametrisation
) -> None:
    x = truth.activations(prompts)
    found = fit(Design.of(prompts, parametrisation), x)
    run = truth.run(prompts, x)
    reference = Reference.of(run, {NODE: x}, {NODE: found.bias}, run({}))
    features = found.features("MSE")
    result = approximate(run, {NODE: features.reconstruct(features.encode(x, prompts))}, reference)
    for estimate in (result.sufficiency, result.necessity):
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((1, 1, 1))


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_supervised_edits_do_what_the_true_patch_does(truth: Sums, prompts: Prompts, attribute: Attribute) -> None:
    target = changed(prompts, attribute)
    x, goal = truth.activations(prompts), truth.activations(target)
    found, run = fit(Design.of(prompts), x), truth.run(prompts, x)
    true = run({NODE: goal})
    assert bool(agreement(run, {NODE: found.edit(x, prompts, target)}, true).all())
    result = control(run, {NODE: found.path(x, prompts, target)}, run({}), true, budgets=(1, 2))
    assert result.no_edit.value == 0
    assert result.scores[1].accuracy.value == 1
    # The path removes first: half an edit leaves no value of the attribute at all, and rarely the right one.
    assert result.scores[0].accuracy.value < 0.5
    by_greed = codes_and_paths(found, x, prompts, goal, target, attribute)
    for path in by_greed:
        scored = control(run, {NODE: path}, run({}), true, budgets=(2, 8), supervised=torch.ones(len(x)) > 0)
        for score in scored.scores:
            assert score.accuracy.value == score.normalised.value == 1
            assert score.relative is not None
            assert score.relative.value == 1
            assert score.magnitude.value == pytest.approx(result.scores[1].magnitude.value, rel=1e-6)


def codes_and_paths(
    found: Supervised, x: Tensor, prompts: Prompts, goal: Tensor, target: Prompts, attribute: Attribute
):
    """Agnostic and guided edits among the supervised latents: the same two latents."""
    features = found.features("MSE")
    before, after = features.encode(x, prompts), features.encode(goal, target)
    yield greedy_path(features, x, goal, before, after, most=2)
    f1 = PropertyTable.of(before, prompts).f1[attribute]
    yield guided_path(features, x, before, after, f1, (prompts.value(attribute), target.value(attribute)), most=2)
