"""Supervised dictionaries: labels, groups, least squares against the dense one, and the artifact."""

from pathlib import Path

import pytest
import torch

from saelab.dictionaries.artifact import load
from saelab.evaluation.ioi.features import of_dictionary
from saelab.evaluation.ioi.supervised import Design, Parametrisation, fit, labels
from saelab.evaluation.ioi.task import Prompts
from saelab.evaluation.ioi.toys import ORIGIN, unwritten_prompts
from tests.evaluation.ioi.readout import N_NAMES, Sums


@pytest.fixture(scope="module")
def prompts() -> Prompts:
    return unwritten_prompts(300, N_NAMES, torch.Generator().manual_seed(3))


def test_labels_and_their_names(prompts: Prompts) -> None:
    for parametrisation in ("independent", "coupled"):
        design = Design.of(prompts, parametrisation)
        values = [f"{group.name}={value}" for group in design.groups for value in group.values]
        one = design.labels[0].tolist()
        io, s, pos = prompts.names[prompts.io[0]], prompts.names[prompts.s[0]], ("ABB", "BAB")[prompts.pos[0]]
        said = {
            "independent": [f"IO={io}", f"S={s}", f"Pos={pos}"],
            "coupled": [f"IO x Pos={io} x {pos}", f"S x Pos={s} x {pos}"],
        }
        assert [values[i] for i in one] == said[parametrisation]
        assert (
            len(values) == design.n_latents == {"independent": 2 * N_NAMES + 2, "coupled": 4 * N_NAMES}[parametrisation]
        )


@pytest.mark.parametrize("parametrisation", ["independent", "coupled"])
def test_least_squares_is_the_dense_one(prompts: Prompts, parametrisation: Parametrisation) -> None:
    x = torch.randn(300, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    design = Design.of(prompts, parametrisation)
    C = torch.zeros(300, design.n_latents, dtype=torch.float64).scatter_(1, design.labels, 1.0)
    torch.testing.assert_close(fit(design, x).vectors, torch.linalg.pinv(C) @ (x - x.mean(0)))
    mean = C.T @ x / C.sum(0)[:, None] - x.mean(0)
    torch.testing.assert_close(fit(design, x, "mean").vectors, mean)


def test_a_value_that_was_never_seen_has_no_vector(prompts: Prompts) -> None:
    some = prompts[(prompts.io != 2)]
    x = Sums.make().activations(some)
    for method in ("mean", "mse"):
        assert float(fit(Design.of(some), x, method).vectors[2].abs().max()) < 1e-9


def test_an_edit_of_nothing_is_nothing(prompts: Prompts) -> None:
    x = Sums.make().activations(prompts).float()
    found = fit(Design.of(prompts), x)
    assert torch.equal(found.edit(x, prompts, prompts), x)
    assert found.path(x, prompts, prompts).longest == 0


@pytest.mark.parametrize("parametrisation", ["independent", "coupled"])
def test_at_rest_it_reads_the_labels_off_the_activation(
    prompts: Prompts, parametrisation: Parametrisation, tmp_path: Path
) -> None:
    truth, fresh = Sums.make(), unwritten_prompts(500, N_NAMES, torch.Generator().manual_seed(4))
    x = truth.activations(prompts, noise=0.1).float()
    found = fit(Design.of(prompts, parametrisation), x)
    found.dictionary(x, prompts, ORIGIN).save(tmp_path / "dictionary", golden=x[:8])
    dictionary = load(tmp_path / "dictionary")
    assert (dictionary.config.kind, dictionary.config.rule) == ("supervised", "group")
    features = of_dictionary("at rest", dictionary)
    seen = truth.activations(fresh, noise=0.1, seed=1).float()
    codes = features.encode(seen, fresh)
    assert set(codes.values.tolist()) == {1.0}
    guessed = codes.latents.reshape(500, -1)
    assert float((guessed == labels(fresh, parametrisation)).double().mean()) > 0.97
    true = found.features("true labels")
    torch.testing.assert_close(true.reconstruct(true.encode(x, prompts)), features.reconstruct(true.encode(x, prompts)))
