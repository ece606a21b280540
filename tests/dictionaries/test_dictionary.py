"""A dictionary at rest: encoding, scaling, saving, and refusing what is not right."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saelab.dictionaries.artifact import load
from saelab.dictionaries.config import ActivationAffinity, DictionaryConfig, MutualChoice, TokenChoice
from saelab.dictionaries.dictionary import Dictionary
from saelab.errors import UserError


def make(
    rule: str = "topk", scale: float = 1.0, d_in: int = 6, d_sae: int = 16, k: int = 3, seed: int = 0
) -> Dictionary:
    generator = torch.Generator().manual_seed(seed)
    W_dec = torch.nn.functional.normalize(torch.randn(d_sae, d_in, generator=generator), dim=1)
    config = DictionaryConfig(
        architecture=rule, d_in=d_in, d_sae=d_sae, k=k, affinity=ActivationAffinity(),
        allocation=TokenChoice() if rule == "topk" else MutualChoice(), rule=rule,  # type: ignore[arg-type]
        scale=scale, site="blocks.0.resid_post", model="test", model_fingerprint="", tokenizer_fingerprint="",
        policy={}, tokens_trained=0, saelab_version="0",
    )  # fmt: skip
    threshold = torch.rand(d_sae, generator=generator) if rule == "threshold" else torch.empty(0)
    b_enc, b_dec = torch.randn(d_sae, generator=generator) * 0.1, torch.randn(d_in, generator=generator)
    return Dictionary(W_dec.clone(), W_dec, b_enc, b_dec, threshold, config)


def test_topk_by_hand() -> None:
    # W_enc = W_dec = identity, no biases: the codes are the two largest positive coordinates.
    plain = make(d_in=3, d_sae=3, k=2)
    eye = Dictionary(torch.eye(3), torch.eye(3), torch.zeros(3), torch.zeros(3), torch.empty(0), plain.config)
    codes = eye.encode(torch.tensor([[3.0, -1.0, 2.0], [-1.0, 5.0, -2.0]]))
    assert codes.to_dense().tolist() == [[3.0, 0.0, 2.0], [0.0, 5.0, 0.0]]
    assert eye.decode(codes).tolist() == [[3.0, 0.0, 2.0], [0.0, 5.0, 0.0]]


@given(st.sampled_from(["topk", "threshold"]), st.floats(0.01, 100), st.integers(0, 20))
def test_folding_the_scale_changes_nothing(rule: str, scale: float, seed: int) -> None:
    dictionary = make(rule, scale, seed=seed).to(torch.float64)
    x = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) / scale
    folded = dictionary.folded()
    torch.testing.assert_close(folded.encode(x).to_dense(), dictionary.encode(x).to_dense(), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(folded(x), dictionary(x), rtol=1e-8, atol=1e-10 / scale)


@pytest.mark.parametrize("rule", ["topk", "threshold"])
def test_a_token_is_encoded_the_same_alone(rule: str) -> None:
    dictionary = make(rule).to(torch.float64)
    x = torch.randn(4, 3, 6, dtype=torch.float64)
    together = dictionary.encode(x).to_dense()
    assert together.shape == (4, 3, 16)
    torch.testing.assert_close(dictionary.encode(x[2, 1]).to_dense(), together[2, 1])


def test_no_rows(tmp_path: Path) -> None:
    assert make().encode(torch.empty(0, 6)).nnz == 0


def test_directions_add_what_a_unit_of_code_adds() -> None:
    dictionary = make(scale=4.0)
    codes = dictionary.encode(torch.randn(1, 6))
    more = codes.with_values(codes.values + 1)
    added = dictionary.decode(more) - dictionary.decode(codes)
    torch.testing.assert_close(added[0], dictionary.decoder_directions()[codes.latents].sum(0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rule", ["topk", "threshold"])
class TestArtifact:
    def saved(self, tmp_path: Path, rule: str) -> Path:
        make(rule, scale=0.5).save(tmp_path / "dictionary", golden=torch.randn(4, 6))
        return tmp_path / "dictionary"

    def test_round_trip_is_exact(self, tmp_path: Path, rule: str) -> None:
        before, after = make(rule, scale=0.5), load(self.saved(tmp_path, rule))
        assert all(torch.equal(getattr(before, n), getattr(after, n)) for n in ("W_enc", "W_dec", "b_enc", "threshold"))

    def test_found_inside_a_run(self, tmp_path: Path, rule: str) -> None:
        self.saved(tmp_path, rule)
        assert load(tmp_path).d_sae == 16

    def test_a_flipped_bit_is_found(self, tmp_path: Path, rule: str) -> None:
        weights = self.saved(tmp_path, rule) / "dictionary.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        with pytest.raises(UserError, match="checksum"):
            load(weights.parent)

    def test_a_changed_scale_fails_the_golden_check(self, tmp_path: Path, rule: str) -> None:
        config = self.saved(tmp_path, rule) / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"scale": 0.51}))
        with pytest.raises(UserError, match="golden"):
            load(config.parent)

    def test_a_newer_schema_says_so(self, tmp_path: Path, rule: str) -> None:
        config = self.saved(tmp_path, rule) / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"schema_version": 99}))
        with pytest.raises(UserError, match="schema version 99"):
            load(config.parent)


def test_nan_weights_are_never_written(tmp_path: Path) -> None:
    dictionary = make()
    dictionary.W_enc[0, 0] = torch.nan
    with pytest.raises(UserError, match="W_enc holds NaN"):
        dictionary.save(tmp_path / "dictionary", golden=torch.randn(4, 6))
    assert not (tmp_path / "dictionary").exists()


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load(tmp_path / "nowhere")
