"""Lists in place of single values: which runs they make, and how these are called."""

import math
import re
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from saelab.config import Config, Count, load_config, read_settings, to_yaml
from saelab.errors import UserError
from saelab.training import TrainConfig
from saelab.training.grid import Point, expand


class Plain(Config):
    kind: Literal["plain"] = "plain"


class Steep(Config):
    kind: Literal["steep"] = "steep"
    slope: float = 1.0


class Inner(Config):
    preset: Literal["a", "b"] = "a"
    k: int = Field(default=1, gt=0)
    shape: Annotated[Plain | Steep, Field(discriminator="kind")] = Plain()
    parts: tuple[float, ...] = (1.0,)


class Outer(Config):
    site: str = "s"
    target: str | tuple[str, ...] | None = None
    inner: Inner = Inner()
    tokens: Count = 10
    seed: int = 0
    fast: bool = False


def points(values: dict[str, Any]) -> dict[str, Outer]:
    return {point.name: point.config for point in expand(Outer, values, "here")}


def names(values: dict[str, Any]) -> list[str]:
    return list(points(values))


def test_without_lists_there_is_one_run_without_a_name() -> None:
    assert expand(Outer, {"inner": {"k": 3}}, "here") == [Point("", Outer(inner=Inner(k=3)))]


def test_all_combinations_the_last_list_fastest() -> None:
    found = points({"inner": {"preset": ["b", "a"], "k": [16, 32]}})
    assert list(found) == ["b-k16", "b-k32", "a-k16", "a-k32"]
    assert found["b-k32"].inner == Inner(preset="b", k=32)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"inner": {"k": [8]}}, ["k8"]),  # a list of one is a list: adding a value later keeps the name
        ({"seed": [0, 1], "inner": {"k": [8, 9]}}, ["k8-seed0", "k9-seed0", "k8-seed1", "k9-seed1"]),
        ({"site": ["blocks.1.resid_post", "x/y z"]}, ["blocks.1.resid_post", "y_z"]),
        ({"inner": {"shape": [{"kind": "plain"}, {"kind": "steep"}]}}, ["shape-plain", "shape-steep"]),
        ({"inner": [{"shape": {"kind": "steep", "slope": 2}}, {}]}, ["shape-steep-slope2", "shape-plain"]),
        ({"inner": {"shape": {"kind": "steep", "slope": [1, 0.001]}}}, ["slope1", "slope0.001"]),
        ({"tokens": ["1M", 20_000, "1_234_567"]}, ["tokens1M", "tokens20k", "tokens1234567"]),
        ({"fast": [True, False]}, ["fast", "no-fast"]),
        ({"target": [None, "a", ["a", "b"]]}, ["target-none", "a", "a+b"]),
        ({"inner": {"parts": [[1.0], [0.5, 1.0]]}}, ["1.0", "0.5+1.0"]),
    ],
)  # fmt: skip
def test_names(values: dict[str, Any], expected: list[str]) -> None:
    assert names(values) == expected


def test_a_setting_that_is_a_list_itself_is_not_taken_apart() -> None:
    (point,) = expand(Outer, {"target": ["a", "b"], "inner": {"parts": [0.5, 1.0]}}, "here")
    assert (point.name, point.config.target, point.config.inner.parts) == ("", ("a", "b"), (0.5, 1.0))


def test_a_list_of_sections_may_hold_lists() -> None:
    found = points({"inner": [{"preset": "a", "k": [16, 32]}, {"preset": "b", "k": 8}], "tokens": 5})
    assert list(found) == ["a-k16", "a-k32", "b-k8"]
    assert {config.tokens for config in found.values()} == {5}


def test_what_the_sections_of_a_list_share_is_not_in_their_names() -> None:
    assert names({"inner": [{"preset": "a", "k": 8}, {"preset": "b", "k": 8}]}) == ["a", "b"]


def test_commas_make_lists_of_numbers_and_choices_but_not_of_text() -> None:
    found = points({"inner": {"k": "16,32", "preset": "a, b"}, "site": "one,two"})
    assert list(found) == ["a-k16", "b-k16", "a-k32", "b-k32"]
    assert {config.site for config in found.values()} == {"one,two"}


def test_the_order_of_the_options_does_not_change_a_name() -> None:
    one = read_settings(None, {"seed": "[1,2]", "inner.k": "[4,5]"})
    other = read_settings(None, {"inner.k": "[5,4]", "seed": "[2,1]"})
    assert points(one) == points(other)


def test_an_option_goes_into_every_section_of_a_list(tmp_path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text("inner: [{preset: a}, {preset: b}]\n")
    found = points(read_settings(file, {"inner.k": "7"}))
    assert {name: config.inner.k for name, config in found.items()} == {"a": 7, "b": 7}


def test_names_that_would_be_equal_are_told_apart() -> None:
    found = names({"site": ["x/text", "y/text", "z"]})
    assert found[2] == "z"
    assert all(re.fullmatch(r"text-[0-9a-f]{6}", name) for name in found[:2])
    assert len(set(found)) == 3


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"inner": {"k": [16, 16]}}, "two combinations of the lists are the same run, k16"),
        ({"inner": {"k": []}}, "inner.k is an empty list"),
        ({"inner": []}, "inner is an empty list"),
        ({"inner": {"k": "16,384"}}, "inner.k = 16,384 may be one number or several; write 16384 or [16, 384]"),
        ({"inner": {"k": [16, 0]}}, "inner.k: input should be greater than 0 (got 0)"),
        ({"inner": {"preset": "a,c"}}, "inner.preset: input should be 'a' or 'b' (got 'c')"),
        ({"inner": {"kk": [1, 2]}}, "unknown key 'inner.kk'; did you mean 'k'"),
        ({"inner": [{"k": 1}, 3]}, "inner: input should be a valid dictionary"),
    ],
)
def test_refusals(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match="^here: ") as refusal:
        expand(Outer, values, "here")
    assert sentence in str(refusal.value)


@given(
    k=st.lists(st.integers(1, 10**9), min_size=1, max_size=4, unique=True),
    seed=st.lists(st.integers(-5, 5), min_size=1, max_size=3, unique=True),
    site=st.lists(st.text(max_size=8), min_size=1, max_size=3, unique=True),
    slope=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=3, unique=True),
)
def test_every_combination_once_under_a_name_that_any_file_system_takes(
    k: list[int], seed: list[int], site: list[str], slope: list[float]
) -> None:
    values = {"site": site, "seed": seed, "inner": {"k": k, "shape": {"kind": "steep", "slope": slope}}}
    found = expand(Outer, values, "here")
    assert len(found) == math.prod(map(len, (k, seed, site, slope)))
    assert (
        len({point.name.casefold() for point in found}) == len({to_yaml(point.config) for point in found}) == len(found)
    )
    assert all(re.fullmatch(r"[A-Za-z0-9+=][A-Za-z0-9_.+=-]{0,126}", point.name) for point in found)


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=5, unique=True), st.data())
def test_a_name_stays_when_values_are_added_or_moved(k: list[int], data: st.DataObject) -> None:
    some = data.draw(st.permutations(k)).copy()[: data.draw(st.integers(1, len(k)))]
    few, all_ = points({"inner": {"k": some}}), points({"inner": {"k": k}})
    assert few.items() <= all_.items()


def test_a_grid_of_trainings() -> None:
    values = read_settings(
        None, {"sae.d_sae": "64", "sae.preset": "topk,gradient", "sae.k": "2,4", "sae.aux.kind": "none"}
    )
    found = {point.name: point.config for point in expand(TrainConfig, values, "here")}
    assert list(found) == ["topk-k2", "topk-k4", "gradient-k2", "gradient-k4"]
    alone = load_config(
        TrainConfig, None, {"sae.d_sae": 64, "sae.preset": "gradient", "sae.k": 4, "sae.aux.kind": "none"}
    )
    assert found["gradient-k4"] == alone
