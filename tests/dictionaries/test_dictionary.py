"""A dictionary at rest: encoding, scaling, saving, and refusing what is not right."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saelab.dictionaries.artifact import load
from saelab.dictionaries.config import (
    ActivationAffinity,
    DictionaryConfig,
    Gated,
    Group,
    GroupChoice,
    MutualChoice,
    Rule,
    Target,
    TokenChoice,
)
from saelab.dictionaries.dictionary import Dictionary
from saelab.errors import UserError

TENSORS = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold", "gain", "shift")
KINDS = ["topk", "threshold", "gated", "transcoder", "supervised"]
GROUPS = GroupChoice(
    groups=(
        Group(name="IO", values=tuple("abcdefg")),
        Group(name="S", values=tuple("abcdefg")),
        Group(name="Pos", values=("ABB", "BAB")),
    )
)

RULES: dict[str, Rule] = {"topk": "topk", "supervised": "group"}


def make(
    kind: str = "topk", scale: float = 1.0, d_in: int = 6, d_sae: int = 16, k: int = 3, seed: int = 0
) -> Dictionary:
    generator = torch.Generator().manual_seed(seed)
    targets = (Target(site="blocks.1.mlp_out", width=3, scale=0.5), Target(site="blocks.2.z", width=4, scale=3.0))
    d_out = 7 if kind == "transcoder" else d_in
    W_dec = torch.nn.functional.normalize(torch.randn(d_sae, d_out, generator=generator), dim=1)
    W_enc = W_dec.clone() if d_out == d_in else torch.randn(d_sae, d_in, generator=generator)
    config = DictionaryConfig(
        kind="supervised" if kind == "supervised" else "sae", architecture=kind, d_in=d_in, d_sae=d_sae, k=k,
        affinity=ActivationAffinity(),
        allocation={"topk": TokenChoice(), "gated": Gated(), "supervised": GROUPS}.get(kind, MutualChoice()),
        rule=RULES.get(kind, "threshold"), targets=targets if kind == "transcoder" else (),
        scale=scale, site="blocks.0.resid_post", model="test", model_fingerprint="", tokenizer_fingerprint="",
        policy={}, tokens_trained=0, saelab_version="0",
    )  # fmt: skip
    threshold = torch.empty(0) if kind in RULES else torch.rand(d_sae, generator=generator)
    b_enc, b_dec = torch.randn(d_sae, generator=generator) * 0.1, torch.randn(d_out, generator=generator)
    gate = [torch.randn(d_sae, generator=generator) for _ in range(2)] if kind == "gated" else []
    return Dictionary(W_enc, W_dec, b_enc, b_dec, threshold, config, *gate)


def test_topk_by_hand() -> None:
    # W_enc = W_dec = identity, no biases: the codes are the two largest positive coordinates.
    plain = make(d_in=3, d_sae=3, k=2)
    eye = Dictionary(torch.eye(3), torch.eye(3), torch.zeros(3), torch.zeros(3), torch.empty(0), plain.config)
    codes = eye.encode(torch.tensor([[3.0, -1.0, 2.0], [-1.0, 5.0, -2.0]]))
    assert codes.to_dense().tolist() == [[3.0, 0.0, 2.0], [0.0, 5.0, 0.0]]
    assert eye.decode(codes).tolist() == [[3.0, 0.0, 2.0], [0.0, 5.0, 0.0]]


@given(st.sampled_from(KINDS), st.floats(0.01, 100), st.integers(0, 20))
def test_folding_the_scale_changes_nothing(kind: str, scale: float, seed: int) -> None:
    dictionary = make(kind, scale, seed=seed).to(torch.float64)
    x = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) / scale
    folded = dictionary.folded()
    torch.testing.assert_close(folded.encode(x).to_dense(), dictionary.encode(x).to_dense(), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(folded(x), dictionary(x), rtol=1e-8, atol=1e-10 / scale)


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_is_encoded_the_same_alone(kind: str) -> None:
    dictionary = make(kind).to(torch.float64)
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


def test_a_gated_dictionary_by_hand() -> None:
    # z = x − b_dec + b_enc decides; f = relu(2 z − 1) says how strongly.
    plain = make("gated", d_in=2, d_sae=2)
    two, zero = torch.full((2,), 2.0), torch.zeros(2)
    gated = Dictionary(torch.eye(2), torch.eye(2), zero, zero, zero, plain.config, two, torch.full((2,), -1.0))
    codes = gated.encode(torch.tensor([[3.0, 0.25], [-1.0, 1.0]]))
    assert codes.to_dense().tolist() == [[5.0, 0.0], [0.0, 1.0]]
    assert codes.nnz == 2  # an open gate without magnitude does not fire


def test_a_supervised_dictionary_by_hand() -> None:
    # Three groups of 2, 1 and 2 latents; z = x. A group has its best latent, however little that one is wanted.
    groups = tuple(Group(name=name, values=tuple(values)) for name, values in (("A", "ab"), ("B", "a"), ("C", "ab")))
    config = make(d_in=5, d_sae=5, k=3).config.model_dump(mode="json")
    config = DictionaryConfig(
        **config | {"kind": "supervised", "rule": "group", "allocation": {"kind": "group", "groups": groups}}
    )
    eye, zero = torch.eye(5), torch.zeros(5)
    codes = Dictionary(eye, eye, zero, zero, torch.empty(0), config).encode(
        torch.tensor([[3.0, 4.0, -1.0, -3.0, -2.0], [0.5, 0.5, 9.0, 0.0, -1.0]])
    )
    assert codes.to_dense().tolist() == [[0, 1, 1, 0, 1], [1, 0, 1, 1, 0]]  # ties: the lower latent


@pytest.mark.parametrize(
    ("change", "complaint"),
    [({"d_sae": 17}, "the groups hold 16 latents and d_sae says 17"), ({"rule": "topk"}, "belong together")],
)
def test_groups_that_do_not_fit_are_refused(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        DictionaryConfig.model_validate(make("supervised").config.model_dump(mode="json") | change)


def test_a_transcoder_writes_to_its_targets_each_in_its_own_units() -> None:
    dictionary = make("transcoder", scale=2.0)
    x = torch.randn(5, 6)
    codes = dictionary.encode(x)
    torch.testing.assert_close(dictionary.pre_activations(x), (2 * x) @ dictionary.W_enc.T + dictionary.b_enc)
    y = dictionary.decode(codes)
    inside = codes.to_dense() @ dictionary.W_dec + dictionary.b_dec
    torch.testing.assert_close(y, torch.cat([inside[:, :3] / 0.5, inside[:, 3:] / 3.0], dim=1))
    assert (dictionary.d_in, dictionary.d_out) == (6, 7)
    assert dictionary.config.target_sites == ("blocks.1.mlp_out", "blocks.2.z")


@pytest.mark.parametrize("kind", KINDS)
class TestArtifact:
    def saved(self, tmp_path: Path, kind: str) -> Path:
        make(kind, scale=0.5).save(tmp_path / "dictionary", golden=torch.randn(4, 6))
        return tmp_path / "dictionary"

    def test_round_trip_is_exact(self, tmp_path: Path, kind: str) -> None:
        before, after = make(kind, scale=0.5), load(self.saved(tmp_path, kind))
        assert all(torch.equal(getattr(before, name), getattr(after, name)) for name in TENSORS)

    def test_found_inside_a_run(self, tmp_path: Path, kind: str) -> None:
        self.saved(tmp_path, kind)
        assert load(tmp_path).d_sae == 16

    def test_a_flipped_bit_is_found(self, tmp_path: Path, kind: str) -> None:
        weights = self.saved(tmp_path, kind) / "dictionary.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        with pytest.raises(UserError, match="checksum"):
            load(weights.parent)

    def test_a_changed_scale_fails_the_golden_check(self, tmp_path: Path, kind: str) -> None:
        config = self.saved(tmp_path, kind) / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"scale": 0.51}))
        with pytest.raises(UserError, match="golden"):
            load(config.parent)

    def test_a_newer_schema_says_so(self, tmp_path: Path, kind: str) -> None:
        config = self.saved(tmp_path, kind) / "config.json"
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
