"""The formats against the packages that they belong to: what one side saves, the other computes with alike."""

from __future__ import annotations

import importlib
import shutil
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.exchange import ALLOCATIONS, Peer, distance, random_dictionary
from saelab.errors import UserError
from saelab.hub.formats import named, recognise
from saelab.hub.formats.probes import decided, difference, probes

pytestmark = pytest.mark.filterwarnings("ignore")
PACKAGES = {"saelens": "sae_lens", "sparsify": "sparsify", "dictionary_learning": "dictionary_learning"}
THEIRS = {
    "saelens": [
        "standard", "standard, b_dec not subtracted", "topk", "topk, rescaled", "jumprelu",
        "jumprelu, b_dec not subtracted", "gated", "gated, b_dec not subtracted", "batchtopk", "matryoshka_batchtopk",
        "transcoder", "jumprelu_transcoder",
    ],
    "sparsify": ["topk", "topk transcoder"],
    "dictionary_learning": [
        "AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "JumpReluAutoEncoder", "AutoEncoderTopK", "BatchTopKSAE",
        "MatryoshkaBatchTopKSAE",
    ],
}  # fmt: skip
OURS = {
    "saelens": {*ALLOCATIONS} - {"topk transcoder"},
    "sparsify": {"topk", "gradient", "topk transcoder"},
    "dictionary_learning": {kind for kind in ALLOCATIONS if "transcoder" not in kind},
}
CLOSE = 1e-5


def the_peer(name: str) -> Peer:
    if find_spec(PACKAGES[name]) is None:
        pytest.skip(f"{name} is not installed; `make peers` makes an environment that has it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cast(Peer, importlib.import_module(f"benchmarks.exchange.{name}"))


def inputs(dictionary: Any, rows: int = 64) -> Tensor:
    x = probes(dictionary, rows)
    return x[decided(dictionary, x)]


@pytest.mark.parametrize("scale", [1.0, 0.07])
@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in OURS.items() for kind in sorted(kinds)])
def test_what_we_write_they_compute(name: str, kind: str, scale: float, tmp_path: Path) -> None:
    peer, dictionary = the_peer(name), random_dictionary(kind, d_in=24, d_sae=96, k=6, scale=scale)
    named(peer.FORMAT).write(dictionary, tmp_path / "it")
    sae, x = peer.load(tmp_path / "it"), inputs(dictionary)
    codes = dictionary.encode(x)
    assert codes.nnz > len(x)
    assert distance(peer.reconstruct(sae, x), dictionary.decode(codes)) < CLOSE
    torch.testing.assert_close(peer.codes(sae, x), codes.to_dense(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name in OURS for kind in ALLOCATIONS if kind not in OURS[name]]
)
def test_what_they_lack_is_not_written(name: str, kind: str, tmp_path: Path) -> None:
    form = named(name.replace("_", "-"))
    with pytest.raises(UserError, match="transcoder|thresholds"):
        form.write(random_dictionary(kind, d_in=8, d_sae=16, k=2), tmp_path / "it")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in THEIRS.items() for kind in kinds])
def test_what_they_write_we_compute(name: str, kind: str, tmp_path: Path) -> None:
    peer = the_peer(name)
    assert [*peer.KINDS] == THEIRS[name]
    sae = peer.random(kind, d_in=24, d_sae=96, k=6, seed=0)
    peer.save(sae, tmp_path / "it")
    form = recognise(tmp_path / "it")
    assert form.name == peer.FORMAT
    dictionary, theirs = form.read(tmp_path / "it").dictionary, peer.load(tmp_path / "it")
    x = inputs(dictionary)
    codes = dictionary.encode(x)
    assert codes.nnz > len(x)
    assert distance(peer.reconstruct(theirs, x), dictionary.decode(codes)) < CLOSE
    if "TopK" not in kind and "batchtopk" not in kind:  # those select by batch while they train
        assert distance(peer.reconstruct(sae, x), dictionary.decode(codes)) < CLOSE


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in THEIRS.items() for kind in kinds])
def test_from_them_to_us_and_back(name: str, kind: str, tmp_path: Path) -> None:
    """A second trip changes no bit, but where a logarithm is taken or the centre moves between the biases."""
    peer, form = the_peer(name), named(name.replace("_", "-"))
    peer.save(peer.random(kind, d_in=24, d_sae=96, k=6, seed=1), tmp_path / "theirs")
    once = form.read(tmp_path / "theirs").dictionary
    form.write(once, tmp_path / "ours")
    again = form.read(tmp_path / "ours").dictionary
    assert again.config.model_copy(update={"tokens_trained": 0, "policy": {}}) == once.config
    for tensor in ("W_enc", "W_dec", "b_dec", "threshold"):
        assert torch.equal(getattr(again, tensor), getattr(once, tensor)), tensor
    moved = kind in ("AutoEncoder", "AutoEncoderNew", "JumpReluAutoEncoder")  # the first is written as the second
    torch.testing.assert_close(again.b_enc, once.b_enc, rtol=1e-5 * moved, atol=1e-6 * moved)
    torch.testing.assert_close(again.gain, once.gain, rtol=1e-6, atol=0)
    torch.testing.assert_close(again.shift, once.shift, rtol=1e-5, atol=1e-6)
    assert difference(once, again, probes(once, 64)).largest < CLOSE


@pytest.mark.parametrize("name", list(PACKAGES))
@given(data=st.data(), dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]), seed=st.integers(0, 999))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_shape_scale_threshold_and_precision(name: str, data: st.DataObject, dtype: torch.dtype, seed: int) -> None:
    peer = the_peer(name)
    d_in, d_sae = data.draw(st.integers(1, 40)), data.draw(st.integers(2, 80))
    k = data.draw(st.integers(1, d_sae))
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder) / "theirs"
        sae = peer.random(data.draw(st.sampled_from([*peer.KINDS])), d_in, d_sae, k, seed)
        peer.save(sae.to(dtype), there)
        dictionary = named(peer.FORMAT).read(there).dictionary
        x = inputs(dictionary)
        theirs = peer.load(there).to(torch.float32)
        if len(x):
            _same(dictionary, peer, theirs, x)
        scale = data.draw(st.floats(1e-3, 1e3))
        ours = random_dictionary(data.draw(st.sampled_from(sorted(OURS[name]))), d_in, d_sae, k, scale, seed)
        shutil.rmtree(there)
        named(peer.FORMAT).write(ours.to(dtype).to(torch.float32), there)
        stored, x = ours.to(dtype).to(torch.float32), inputs(ours.to(dtype).to(torch.float32))
        if len(x):
            _same(stored, peer, peer.load(there), x)


def _same(dictionary: Any, peer: Peer, sae: Any, x: Tensor) -> None:
    """Rows on which a reconstruction is the bias and little else are compared against the size of what is added."""
    x_hat = dictionary(x)
    size = x_hat.norm(dim=1).clamp(min=float(x_hat.norm(dim=1).median()))
    assert float(((peer.reconstruct(sae, x) - x_hat).norm(dim=1) / size).max()) < CLOSE
