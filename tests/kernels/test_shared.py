"""Several ranks select what one process selects of the whole: grids of 1 to 4 processes, parts of any size, ties."""

import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from saelab.kernels.backend import Backend, BackendName, choose
from saelab.kernels.codes import SparseCodes
from saelab.kernels.keys import ordered
from saelab.kernels.reference import ReferenceBackend
from saelab.kernels.shared import SharedBackend, SharedScoringBackend
from saelab.ranks import Ranks
from saelab.ranks.mesh import Mesh, meshed
from tests.forks import Group

REFERENCE = ReferenceBackend()
D_OUT = 3
GRIDS = [(1, 1), (1, 2), (2, 1), (1, 3), (3, 1), (1, 4), (2, 2), (4, 1)]


@dataclass
class Case:
    """Scores of a whole batch and dictionary, and what is selected of them."""

    seed: int
    scores: Tensor
    k: int
    budget: int
    budgets: Tensor
    backend: BackendName
    by_latent: bool

    @classmethod
    def drawn(cls, seed: int) -> "Case":
        """Sizes from nothing to a few dozen; every fifth case is noise, the others are full of ties."""
        draw = random.Random(seed)
        generator = torch.Generator().manual_seed(seed)
        B, F = draw.choice([0, 1, 2, 3, 5, 8, 13, 40]), draw.choice([1, 2, 3, 4, 7, 16, 33, 64])
        scores = torch.randn(B, F, generator=generator, dtype=torch.float64)
        if seed % 5:
            scores = scores.mul_(draw.choice([0, 1, 2, 4])).round_()
        for value in draw.sample([-torch.inf, torch.inf, -0.0, torch.nan], draw.choice([0, 0, 1, 3])):
            scores[torch.rand(B, F, generator=generator) < draw.choice([0.05, 0.5])] = value
        budgets = (torch.rand(F, generator=generator) ** draw.choice([1, 4]) * (B + 1)).long()
        return cls(
            seed,
            scores.to(draw.choice([torch.float32, torch.float64])),
            k=draw.choice([0, 1, 2, 3, F // 2, F, F + 2]),
            budget=draw.choice([0, 1, B, B * F // 3, B * F, B * F + 5]),
            budgets=budgets * draw.choice([0, 1, 1, 1]),
            backend=draw.choice(["reference", "cpu"]),
            by_latent=draw.random() < 0.5,
        )

    def selections(self, backend: Backend, rows: slice, latents: slice) -> Iterator[tuple[str, SparseCodes]]:
        """Every selection of a part of the scores, in the layout of `pre_activations`."""
        scores = self.scores[rows, latents]
        scores = scores.T.contiguous().T if self.by_latent else scores.contiguous()
        yield "token choice", backend.select_token(scores, self.k)
        yield "mutual choice", backend.select_mutual(scores, self.budget)
        yield "feature choice", backend.select_feature(scores, self.budgets[latents])
        if not self.scores.isnan().any():  # NaN doesn't fire, but may take the place of what does
            yield "auxiliary choice", backend.select_firing(scores, self.k).positive()

    def traffic(self, mesh: Mesh, rows: slice, latents: slice) -> Counter[str]:
        """Bytes that this rank is to receive, as the docstring of `SharedBackend` says."""
        width = self.scores.element_size()
        D, L, N = mesh.data.size, mesh.latent.size, mesh.world.size
        tokens = rows.stop - rows.start
        bytes_of = Counter({"token choice": (L - 1) * width * tokens * self.k})
        if not self.scores.isnan().any():
            bytes_of["auxiliary choice"] = bytes_of["token choice"]
        bytes_of["feature choice"] = (D - 1) * width * int(self.budgets[latents].sum())
        if self.budget:
            bits = [11, 11, 10] if width == 4 else [11, 11, 11, 11, 11, 9]
            bytes_of["mutual choice"] = sum(
                2 * (N - 1) * 8 * numbers // N for numbers in [2**bit for bit in bits] + [1]
            )
            offers = [
                torch.sort(ordered(self.scores[tokens][:, latents].flatten()), descending=True).values[: self.budget]
                for tokens in mesh.data.parts(len(self.scores))
                for latents in mesh.latent.parts(self.scores.shape[1])
            ]
            falling = torch.sort(torch.cat(offers), descending=True).values.tolist()
            if winning := falling[: self.budget]:
                quota = winning.count(winning[-1])
                if quota < falling.count(winning[-1]):
                    bytes_of["mutual choice"] += 8 * ((N - 1) * quota + (D - 1) + (L - 1))
        return bytes_of


def own_part(codes: SparseCodes, rows: slice, latents: slice) -> SparseCodes:
    """What a rank is to select, cut out of what one process selects."""
    some = codes.take(rows.start, rows.stop)
    own = some.keep((some.latents >= latents.start) & (some.latents < latents.stop))
    width = latents.stop - latents.start
    return SparseCodes(own.values, own.latents - latents.start, own.offsets, width, (own.rows,))


def are_same(one: SparseCodes, other: SparseCodes) -> bool:
    numbers = [(one.values, other.values), (one.latents, other.latents), (one.offsets, other.offsets)]
    return (one.d_sae, one.shape) == (other.d_sae, other.shape) and all(
        mine.shape == its.shape and mine.dtype == its.dtype and torch.allclose(mine, its, 0, 0, equal_nan=True)
        for mine, its in numbers
    )


def mistakes(mesh: Mesh, given: Case) -> list[str]:
    """Selections of a case in which this rank's part is not what one process selects there, or that cost too much."""
    B, F = given.scores.shape
    tokens, own = mesh.data.part(B), mesh.latent.part(F)
    rows, latents = slice(tokens.start, tokens.stop), slice(own.start, own.stop)
    everything = slice(0, B), slice(0, F)
    backend = SharedBackend(choose(given.backend), mesh)
    whole, ours = dict(given.selections(REFERENCE, *everything)), {}
    mesh.received.clear()
    ours |= given.selections(backend, rows, latents)
    traffic, expected = +mesh.received, +given.traffic(mesh, rows, latents)
    wrong = decoding_mistakes(mesh, backend, ours["token choice"], whole["token choice"], rows, latents)
    # Once more on other scores: what a rank offers goes by its share of the first choice.
    turned = replace(given, scores=given.scores.flip(0, 1))
    whole["second"] = REFERENCE.select_mutual(turned.scores, given.budget)
    ours["second"] = backend.select_mutual(turned.scores[rows, latents], given.budget)
    wrong += [name for name, codes in ours.items() if not are_same(codes, own_part(whole[name], rows, latents))]
    if traffic != expected:
        wrong.append(f"received {dict(traffic)}, not {dict(expected)}")
    return [f"{given}: {name}" for name in wrong]


def decoding_mistakes(
    mesh: Mesh, backend: Backend, own: SparseCodes, whole: SparseCodes, rows: slice, latents: slice
) -> list[str]:
    """Of the sum over all ranks' latents; every rank must get the same bits of it."""
    W_dec = torch.randn(whole.d_sae, D_OUT, generator=torch.Generator().manual_seed(0)).to(whole.values.dtype)
    of_own, of_whole = (codes.with_values(codes.values.nan_to_num(1.0, 2.0, -2.0)) for codes in (own, whole))
    mesh.received.clear()
    ours = backend.decode(of_own, W_dec[latents])
    L = mesh.latent.size
    wrong = [] if mesh.received.total() == 2 * (L - 1) * ours.nbytes // L else [f"decode received {mesh.received}"]
    if not torch.allclose(ours, REFERENCE.decode(of_whole, W_dec)[rows], 1e-5, 1e-5):
        wrong.append("decode")
    if not (mesh.latent.gather(ours[None], "test") == ours).all():
        wrong.append("decode differs between ranks")
    return wrong


def select_in_grids(ranks: Ranks, cases: int, backend: BackendName | None = None) -> str:
    found = []
    for data, latent in GRIDS:
        if data * latent == ranks.size:
            with meshed(ranks, data, latent) as mesh:
                for seed in range(cases):
                    given = Case.drawn(seed)
                    given.backend = backend or given.backend
                    found += [f"{data} × {latent}: {mistake}" for mistake in mistakes(mesh, given)]
    return json.dumps(found[:3])


def test_one_rank() -> None:
    for seed in range(200):
        assert not mistakes(Mesh(), Case.drawn(seed))


@pytest.mark.parametrize("size", [2, 3, 4])
def test_ranks_select_what_one_process_selects(size: int, tmp_path: Path) -> None:
    assert Group(tmp_path, size, select_in_grids, 20).wait() == [("done", "[]")] * size


@pytest.mark.distributed
@pytest.mark.parametrize(("size", "cases"), [(2, 200), (3, 150), (4, 80)])
def test_ranks_select_what_one_process_selects_in_many_cases(size: int, cases: int, tmp_path: Path) -> None:
    assert Group(tmp_path, size, select_in_grids, cases).wait() == [("done", "[]")] * size


@pytest.mark.distributed
def test_on_triton_kernels(tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="Triton has no build for this platform")
    assert Group(tmp_path, 2, select_in_grids, 6, "triton").wait() == [("done", "[]")] * 2


def encode_in_grids(ranks: Ranks) -> str:
    """Low-precision scoring on scores without ties, which every shape of the fp32 product ranks alike."""
    found = []
    generator = torch.Generator().manual_seed(0)
    x, W, b = (torch.randn(*shape, generator=generator) for shape in ((21, 16), (256, 16), (256,)))
    z = REFERENCE.pre_activations(x, W, b, by_latent=False)
    for data, latent in GRIDS:
        if data * latent == ranks.size:
            with meshed(ranks, data, latent) as mesh:
                tokens, own = mesh.data.part(len(x)), mesh.latent.part(len(W))
                rows, latents = slice(tokens.start, tokens.stop), slice(own.start, own.stop)
                for name in ("cpu-int8", "cpu-bf16"):
                    backend = choose(name, mesh=mesh)
                    assert isinstance(backend, SharedScoringBackend)
                    given = x[rows], W[latents], b[latents]
                    for ours, whole in (
                        (backend.encode_token(*given, 5), REFERENCE.select_token(z, 5)),
                        (backend.encode_mutual(*given, 100), REFERENCE.select_mutual(z, 100)),
                    ):
                        wanted = own_part(whole, rows, latents)
                        close = torch.allclose(ours.values, wanted.values, 1e-5, 1e-5)
                        if not (close and are_same(ours.with_values(wanted.values), wanted)):
                            found.append(f"{name}, {data} × {latent}")
    return json.dumps(found)


def test_low_precision_scoring(tmp_path: Path) -> None:
    assert Group(tmp_path, 2, encode_in_grids).wait() == [("done", "[]")] * 2


def test_one_rank_has_a_backend_of_its_own() -> None:
    assert not isinstance(choose("cpu", mesh=Mesh()), SharedBackend)
