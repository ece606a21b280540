"""The Triton kernels against the reference: on a GPU if there is one, else under Triton's interpreter on CPU tensors.

Under the interpreter an operation on a block costs a fraction of a millisecond, however large the block: few programs
over wide blocks are cheap, many programs are not.
"""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

pytest.importorskip("triton", reason="Triton has no build for this platform")

from saelab.errors import UserError
from saelab.kernels.backend import AdamStep, choose
from saelab.kernels.codes import SparseCodes
from saelab.kernels.reference import ReferenceBackend
from saelab.kernels.triton import availability
from saelab.kernels.triton.backend import TritonBackend
from saelab.kernels.triton.groups import group_maxima, group_width
from saelab.kernels.triton.mutual import top_places
from saelab.kernels.triton.sums import weighted_sums
from saelab.kernels.triton.token import DIRECT

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
REFERENCE, TRITON = ReferenceBackend(), TritonBackend()
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
few = settings(max_examples=20, deadline=None)


def score_matrix(rows: int, columns: int, levels: int, dtype: torch.dtype, seed: int) -> Tensor:
    """Numbers from `levels` different ones, so that few levels mean ties; both zeros and both infinities among them."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(levels, (rows, columns), generator=generator) - levels / 2
    special = torch.tensor([-0.0, 0.0, torch.inf, -torch.inf])[torch.randint(4, scores.shape, generator=generator)]
    return torch.where(torch.rand(scores.shape, generator=generator) < 0.1, special, scores).to(DEVICE, dtype)


@st.composite
def score_matrices(draw: st.DrawFn, rows: st.SearchStrategy[int], columns: st.SearchStrategy[int]) -> Tensor:
    levels = draw(st.sampled_from([1, 2, 30, 10**6]))
    return score_matrix(draw(rows), draw(columns), levels, draw(st.sampled_from(DTYPES)), draw(st.integers(0, 10**6)))


def same(one: SparseCodes, other: SparseCodes) -> None:
    assert one.offsets.tolist() == other.offsets.tolist()
    assert one.latents.tolist() == other.latents.tolist()
    assert one.values.tolist() == other.values.tolist()
    assert (one.values.dtype, one.shape, one.d_sae) == (other.values.dtype, other.shape, other.d_sae)


class TestSelection:
    @few
    @given(score_matrices(st.integers(1, 3), st.integers(1, 40) | st.integers(DIRECT + 1, DIRECT + 200)), st.data())
    def test_token_choice(self, scores: Tensor, data: st.DataObject) -> None:
        k = data.draw(st.integers(0, min(scores.shape[1], 70)) | st.just(scores.shape[1]))
        same(TRITON.select_token(scores, k), REFERENCE.select_token(scores, k))

    @few
    @given(score_matrices(st.integers(1, 6), st.integers(1, 300)), st.data())
    def test_mutual_choice(self, scores: Tensor, data: st.DataObject) -> None:
        budget = data.draw(st.integers(0, 3 * len(scores)) | st.integers(0, scores.numel() + 1))
        same(TRITON.select_mutual(scores, budget), REFERENCE.select_mutual(scores, budget))

    @few
    @given(score_matrices(st.integers(1, 70), st.integers(1, 4)), st.booleans(), st.data())
    def test_feature_choice(self, scores: Tensor, by_latent: bool, data: st.DataObject) -> None:
        B, F = scores.shape
        budgets = torch.tensor(data.draw(st.lists(st.integers(0, B), min_size=F, max_size=F)), device=DEVICE)
        given_scores = scores.T.contiguous().T if by_latent else scores
        same(TRITON.select_feature(given_scores, budgets), REFERENCE.select_feature(scores, budgets))

    def test_groups_are_taken_where_the_best_scores_are_crowded(self) -> None:
        # All winners of token 0 share one group, those of token 1 are spread over many with equal maxima.
        scores = torch.zeros(2, DIRECT + 77, device=DEVICE)
        scores[0, 100:105] = torch.arange(5.0, device=DEVICE) + 1
        scores[1, ::50] = 1.0
        assert group_width(DIRECT + 77, 5) > 4
        codes = TRITON.select_token(scores, 5)
        assert codes.latents.tolist() == [100, 101, 102, 103, 104, 0, 50, 100, 150, 200]

    def test_the_last_group_may_be_narrower(self) -> None:
        scores = torch.tensor([[1.0, 2.0, 3.0, 4.0, -5.0]], device=DEVICE)
        keys = group_maxima(scores, 4)
        assert keys.shape == (1, 2)
        assert keys[0, 0] > 0 > keys[0, 1]  # the key of −5, and not of what lies behind the end

    def test_what_lies_behind_the_last_latent_is_never_chosen(self) -> None:
        scores = -torch.arange(2.0, 43.0, device=DEVICE)[None]  # 41 latents: groups of 8 and one of 1
        scores[0, 40] = -1.0
        assert group_width(41, 1) == 8
        assert TRITON.select_mutual(scores, 1).latents.tolist() == [40]
        assert TRITON.select_mutual(scores, 2).latents.tolist() == [0, 40]

    def test_ties_across_tiles_go_to_the_earlier_place(self) -> None:
        keys = torch.zeros(5000, dtype=torch.int32, device=DEVICE)
        keys[[4, 4990]] = 7
        assert top_places(keys, 2100).tolist() == [*range(2099), 4990]  # two winners, 2098 zeros beside place 4

    def test_no_token_at_all(self) -> None:
        nothing = torch.zeros(0, 10, device=DEVICE)
        for codes in (TRITON.select_token(nothing, 3), TRITON.select_mutual(nothing, 0)):
            assert (codes.nnz, codes.offsets.tolist(), codes.shape) == (0, [0], (0,))

    def test_what_no_program_can_hold_goes_to_the_reference(self) -> None:
        scores = torch.randn(1, 40_000, generator=torch.Generator().manual_seed(0)).to(DEVICE)
        same(TRITON.select_token(scores, 30_000), REFERENCE.select_token(scores, 30_000))


@st.composite
def sparse_codes(draw: st.DrawFn) -> SparseCodes:
    """Ragged rows over few latents, some rows empty, some latents without a match."""
    rows, d_sae = draw(st.integers(1, 9)), draw(st.integers(1, 12))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    kept = torch.rand(rows, d_sae, generator=generator) < draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    codes = SparseCodes.from_mask(torch.randn(rows, d_sae, generator=generator), kept)
    return codes.to(DEVICE)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


class TestSums:
    @few
    @given(sparse_codes(), st.sampled_from([1, 7, 300]))
    def test_backend(self, codes: SparseCodes, d: int) -> None:
        # Codes so small and full would be multiplied densely: far more latents make them sparse.
        codes = SparseCodes(codes.values, codes.latents, codes.offsets, 40 * codes.d_sae, codes.shape)
        W_dec, grad_x_hat = random(codes.d_sae, d), random(codes.rows, d, seed=1)
        close(TRITON.decode(codes, W_dec), REFERENCE.decode(codes, W_dec))
        close(TRITON.value_gradients(grad_x_hat, codes, W_dec), REFERENCE.value_gradients(grad_x_hat, codes, W_dec))

    @few
    @given(sparse_codes(), st.sampled_from([1, 7, 300]), st.sampled_from([1, 2, 5, 128]))
    @example(SparseCodes.from_mask(torch.ones(20, 2), torch.tensor([True, False]).expand(20, 2)).to(DEVICE), 3, 2)
    def test_long_bags_are_cut(self, codes: SparseCodes, d: int, piece: int) -> None:
        rows = random(codes.rows, d)
        order, offsets = codes.by_latent
        sums = weighted_sums(rows, codes.row_ids[order], offsets, codes.values[order], piece)
        close(sums, REFERENCE.row_gradients(codes, codes.values, rows))

    def test_row_gradients_of_some_latents(self) -> None:
        codes = SparseCodes.from_mask(torch.ones(6, 100), torch.arange(600).view(6, 100) % 37 == 0).to(DEVICE)
        rows = random(6, 5)
        theirs = REFERENCE.row_gradients(codes, 2 * codes.values, rows)
        close(TRITON.row_gradients(codes, 2 * codes.values, rows), theirs)
        close(TRITON.row_gradients(codes, 2 * codes.values, rows, range(30, 75)), theirs[30:75])
        assert TRITON.passes(codes) == [range(100)]

    def test_latent_sums(self) -> None:
        codes = SparseCodes.from_mask(torch.ones(30, 4), torch.tensor([True, False, True, True]).expand(30, 4)).to(
            DEVICE
        )
        codes = codes.keep((codes.latents != 3) | (codes.row_ids < 2))
        of_matches = random(codes.nnz)
        sums = TRITON.latent_sums(codes, of_matches)
        close(sums, REFERENCE.latent_sums(codes, of_matches))
        assert sums[1] == 0

    def test_half_precision_is_summed_in_single(self) -> None:
        # 1 + 2⁻⁹ · 64 ones: summed in bf16, each of the small ones would be lost.
        values = torch.tensor([1.0] + [2.0**-9] * 64, device=DEVICE)
        codes = SparseCodes(
            values, torch.arange(65, device=DEVICE), torch.tensor([0, 65], device=DEVICE), 65 * 40, (1,)
        )
        W_dec = torch.ones(65 * 40, 3, dtype=torch.bfloat16, device=DEVICE)
        assert TRITON.decode(codes, W_dec).tolist() == [[1.125] * 3]
        x = torch.ones(1, 3, dtype=torch.bfloat16, device=DEVICE)
        products = TRITON.value_gradients(x, codes, W_dec)
        assert products.dtype == torch.float32
        assert products.tolist() == [3.0] * 65

    def test_where_most_pairs_are_kept_products_are_dense(self) -> None:
        codes = SparseCodes.from_mask(random(5, 6), torch.ones(5, 6, dtype=torch.bool, device=DEVICE))
        W_dec, rows = random(6, 4), random(5, 4, seed=1)
        close(TRITON.decode(codes, W_dec), REFERENCE.decode(codes, W_dec))
        close(TRITON.value_gradients(rows, codes, W_dec), REFERENCE.value_gradients(rows, codes, W_dec))
        close(TRITON.row_gradients(codes, codes.values, rows), REFERENCE.row_gradients(codes, codes.values, rows))

    def test_pre_activations(self) -> None:
        x, W_enc, b_enc = random(4, 3), random(5, 3, seed=1), random(5, seed=2)
        for by_latent in (False, True):
            z = TRITON.pre_activations(x, W_enc, b_enc, by_latent)
            close(z, x @ W_enc.T + b_enc)
            assert (z.T if by_latent else z).is_contiguous()

    def test_bf16_rounds_the_factors_of_the_product_alone(self) -> None:
        x, W_enc, b_enc = random(4, 3), random(5, 3, seed=1), random(5, seed=2)
        rounded = x.bfloat16().float() @ W_enc.bfloat16().float().T + b_enc
        for by_latent in (False, True):
            z = TritonBackend(half=True).pre_activations(x, W_enc, b_enc, by_latent)
            assert z.dtype == torch.float32
            close(z, rounded)
            assert (z.T if by_latent else z).is_contiguous()
        assert (rounded - (x @ W_enc.T + b_enc)).abs().max() > 1e-4  # bf16 is not fp32


class TestAdam:
    @pytest.mark.parametrize(
        ("shape", "unit_rows"), [((3, 5), False), ((3, 5), True), ((2, 1030), False), ((2, 1030), True), ((7,), False)]
    )
    def test_three_steps(self, shape: tuple[int, ...], unit_rows: bool) -> None:
        states = []
        for backend in (TRITON, REFERENCE):
            weight = normalize(random(*shape), dim=-1)
            mean, square = torch.zeros_like(weight), torch.zeros_like(weight)
            for number in (1, 2, 3):
                gradient = random(*shape, seed=number)
                backend.adam(weight, gradient, mean, square, AdamStep(number, 0.01, 0.9, 0.999, 1e-8), unit_rows)
            states.append((weight, mean, square))
        for ours, theirs in zip(*states, strict=True):
            close(ours, theirs)
        if unit_rows:
            close(states[0][0].norm(dim=1), torch.ones(shape[0], device=DEVICE))

    def test_the_first_step_by_hand(self) -> None:
        # mean / (1 − β₁) = g and √(square / (1 − β₂)) = |g|: the first step of Adam is lr · sign(g).
        weight, gradient = torch.tensor([1.0, 1.0], device=DEVICE), torch.tensor([3.0, -0.5], device=DEVICE)
        mean, square = torch.zeros_like(weight), torch.zeros_like(weight)
        TRITON.adam(weight, gradient, mean, square, AdamStep(1, 0.25, 0.9, 0.999, 1e-30), unit_rows=False)
        close(weight, torch.tensor([0.75, 1.25], device=DEVICE))
        close(mean, 0.1 * gradient)
        close(square, 0.001 * gradient.square())

    def test_frozen_weights_stay_where_they_are(self) -> None:
        weight = normalize(random(3, 5), dim=-1)
        mean, square, before = torch.zeros_like(weight), torch.zeros_like(weight), weight.clone()
        for frozen in (True, False):
            step = AdamStep(1, 0.25, 0.9, 0.999, 1e-8, torch.tensor(frozen, device=DEVICE))
            TRITON.adam(weight, random(3, 5, seed=1), mean, square, step, unit_rows=True)
            assert torch.equal(weight, before) == frozen
            assert bool(mean.any() | square.any()) != frozen


class TestChoice:
    def test_triton_can_be_asked_for_where_it_runs(self) -> None:
        for name in ("triton", "triton-bf16"):
            assert choose(name, DEVICE).name == name

    def test_auto_leaves_cpu_tensors_to_the_cpu(self) -> None:
        assert choose("auto", "cpu").name == "cpu"

    def test_an_obstacle_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(availability, "obstacle", lambda device: "it needs an NVIDIA GPU, not mps")
        with pytest.raises(UserError, match="triton can't run here: it needs an NVIDIA GPU, not mps"):
            choose("triton", DEVICE)

    def test_auto_goes_round_an_obstacle(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
        assert availability.obstacle("cuda:0") == "it needs compute capability 8.0, and cuda:0 has 7.5"
        assert choose("auto", "cuda:0").name == "reference"
        with pytest.raises(UserError, match="cpu runs on the CPU, not on cuda:0"):
            choose("cpu", "cuda:0")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
        assert choose("auto", "cuda:0").name == "triton"
