"""The Zipf–Mandelbrot fit on laws that are known."""

import pytest
import torch

from saelab.dictionaries.zipf import fit_zipf
from saelab.errors import UserError


def law(n: int, s: float, q: float, first: float) -> torch.Tensor:
    rank = torch.arange(1, n + 1, dtype=torch.float64)
    return first * ((rank + q) / (1 + q)) ** -s


@pytest.mark.parametrize(("s", "q"), [(1.0, 0.0), (0.7, 3.5), (1.8, 40.0), (1.2, -0.5)])
def test_an_exact_law_is_found(s: float, q: float):
    fit = fit_zipf(law(2000, s, q, first=0.3))
    assert fit.s == pytest.approx(s, rel=1e-4)
    assert fit.q == pytest.approx(q, rel=1e-3, abs=1e-3)
    assert fit.density(torch.tensor([1.0])).item() == pytest.approx(0.3, rel=1e-4)
    assert fit.r_squared == pytest.approx(1.0, abs=1e-9)
    assert fit.s_error < 1e-4


def test_order_of_latents_and_dead_ones_do_not_matter():
    density = law(500, 1.1, 2.0, first=0.4)
    shuffled = torch.cat([density[torch.randperm(500, generator=torch.Generator().manual_seed(0))], torch.zeros(100)])
    assert fit_zipf(shuffled) == fit_zipf(density)
    assert fit_zipf(shuffled).n_latents == 500


def test_four_latents_by_hand():
    # Densities 1/2, 1/3, 1/4, 1/5 are (rank + 1)^-1 exactly: s = 1, q = 1, intercept = 0.
    fit = fit_zipf(torch.tensor([1 / 2, 1 / 3, 1 / 4, 1 / 5], dtype=torch.float64))
    assert (fit.s, fit.q, fit.intercept) == pytest.approx((1.0, 1.0, 0.0), abs=1e-3)


def test_standard_errors_are_the_scatter_of_refits():
    # Log densities scattered by 0.1 around the law (small enough steps that sorting changes little): the fit's own
    # standard error of s must be what 60 fresh draws show.
    clean = law(300, 1.5, 5.0, first=0.5)
    generator = torch.Generator().manual_seed(0)
    fits = [fit_zipf(clean * (0.02 * torch.randn(300, generator=generator).double()).exp()) for _ in range(60)]
    spread = torch.tensor([fit.s for fit in fits]).std().item()
    claimed = torch.tensor([fit.s_error for fit in fits]).mean().item()
    assert 0.4 < claimed / spread < 2.5


def test_too_few_live_latents_are_refused():
    with pytest.raises(UserError, match="at least 4 latents"):
        fit_zipf(torch.tensor([0.5, 0.25, 0.125, 0.0]))


def test_a_fit_to_some_ranks_is_the_fit_to_all():
    noise = torch.randn(5000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    density = 0.2 * (torch.arange(1, 5001) + 8.0) ** -1.2 * (0.2 * noise).exp()
    every, some = fit_zipf(density), fit_zipf(density, points=400)
    assert some.s == pytest.approx(every.s, abs=3 * every.s_error)
    assert some.q == pytest.approx(every.q, abs=3 * every.q_error)
    assert fit_zipf(density, points=5000) == every
