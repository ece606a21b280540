"""Files made to hurt: whatever bytes they hold, reading ends in a dictionary or in one sentence, and runs nothing."""

from __future__ import annotations

import json
import os
import pickle
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saelab.errors import UserError
from saelab.hub.formats import read
from saelab.hub.formats.pickled import read_state
from tests.hub.formats import reference

MAKERS: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "saelens": (lambda folder: reference.saelens(folder, "jumprelu"), "cfg.json", "sae_weights.safetensors"),
    "sparsify": (reference.sparsify, "cfg.json", "sae.safetensors"),
    "dictionary-learning": (reference.dictionary_learning, "config.json", "ae.pt"),
}
QUICK = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def ends_well(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with suppress(UserError):
        dictionary = read(folder).dictionary
        assert dictionary(torch.randn(2, dictionary.d_in)).shape == (2, dictionary.d_out)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("form", MAKERS)
@given(data=st.data())
@QUICK
def test_damaged_weights(form: str, data: st.DataObject) -> None:
    make, _, weights = MAKERS[form]
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder) / "it"
        make(there)
        content = bytearray((there / weights).read_bytes())
        if data.draw(st.booleans()):
            content = content[: data.draw(st.integers(0, len(content)))]
        early = st.integers(0, max(0, min(len(content), data.draw(st.sampled_from([8, 600, 10**6]))) - 1))
        for place, byte in data.draw(st.lists(st.tuples(early, st.integers(0, 255)), max_size=8)):
            if content:
                content[place] = byte
        (there / weights).write_bytes(content)
        ends_well(there)


@pytest.mark.parametrize("form", MAKERS)
@given(content=st.binary(max_size=300))
@QUICK
def test_bytes_that_are_no_weights(form: str, content: bytes) -> None:
    make, _, weights = MAKERS[form]
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder) / "it"
        make(there)
        (there / weights).write_bytes(content)
        with pytest.raises(UserError, match=weights):
            read(there)


@pytest.mark.parametrize("form", MAKERS)
@given(data=st.data())
@QUICK
def test_any_value_of_any_setting(form: str, data: st.DataObject) -> None:
    make, config, _ = MAKERS[form]
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder) / "it"
        make(there)
        values = json.loads((there / config).read_text())
        sections = [values, *(value for value in values.values() if isinstance(value, dict))]
        section = data.draw(st.sampled_from(sections))
        section[data.draw(st.sampled_from(sorted(section)))] = data.draw(JSON)
        (there / config).write_text(json.dumps(values))
        ends_well(there)


def test_a_header_that_promises_what_the_file_lacks(tmp_path: Path) -> None:
    reference.sparsify(tmp_path, num_latents=2**20)
    shapes = {"encoder.weight": [2**20, 5], "encoder.bias": [2**20], "W_dec": [2**20, 5], "b_dec": [5]}
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 4 * torch.Size(shape).numel()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    (tmp_path / "sae.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(UserError, match="damaged or not a safetensors file"):
        read(tmp_path)
    (tmp_path / "sae.safetensors").write_bytes((2**62).to_bytes(8, "little") + text)
    with pytest.raises(UserError, match="damaged or not a safetensors file"):
        read(tmp_path)


class Runs:
    """A pickle of this runs a command."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def test_a_pickle_that_runs_a_command_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    torch.save({"weight": Runs(mark)}, tmp_path / "ae.pt")
    with pytest.raises(UserError, match="is refused: its pickle asks for '(posix|nt) system'"):
        read_state(tmp_path / "ae.pt")
    (tmp_path / "old.pt").write_bytes(pickle.dumps(Runs(mark)))
    with pytest.raises(UserError, match="damaged or was not written by torch.save"):
        read_state(tmp_path / "old.pt")
    assert not mark.exists()


def test_pickles_that_would_fill_the_memory(tmp_path: Path) -> None:
    torch.save({"b_dec": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "wide.pt")
    with pytest.raises(UserError, match="promises 1,000,000,000,000 numbers"):
        read_state(tmp_path / "wide.pt")
    torch.save({"b_dec": torch.zeros(10**6)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for member in plain.infolist():
            packed.writestr(member.filename, plain.read(member))
    with pytest.raises(UserError, match="is compressed"):
        read_state(tmp_path / "packed.pt")
    torch.save({"b_dec": bytearray(5)}, tmp_path / "bytes.pt")
    with pytest.raises(UserError, match="is refused|not a plain tensor"):
        read_state(tmp_path / "bytes.pt")


@pytest.mark.parametrize("state", [{"x": [1.0]}, {"x": torch.eye(3).to_sparse()}, [torch.ones(2)], {3: torch.ones(2)}])
def test_states_of_other_things_than_tensors(state: Any, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "ae.pt")
    with pytest.raises(UserError, match="plain tensor|state dict|is refused"):
        read_state(tmp_path / "ae.pt")


def test_folders_and_pipes_in_place_of_files(tmp_path: Path) -> None:
    for form, (make, config, weights) in MAKERS.items():
        for name in (config, weights):
            there = tmp_path / f"{form}-{name}"
            make(there)
            (there / name).unlink()
            os.mkfifo(there / name)
            with pytest.raises(UserError, match="no dictionary in a known format"):
                read(there)
