"""Reading settings: precedence, sizes, and sentences for what is wrong."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saelab.config import Config, Count, config_digest, differences, load_config, parse_bytes, parse_count, to_yaml
from saelab.errors import UserError


class Inner(Config):
    depth: int = 1
    names: tuple[str, ...] = ()


class Outer(Config):
    tokens: Count = 10
    inner: Inner = Inner()


@pytest.mark.parametrize(
    ("text", "number"), [("10M", 10**7), ("1.2k", 1200), ("1e6", 10**6), ("1_000", 1000), ("2b", 2 * 10**9), ("7", 7)]
)
def test_counts(text: str, number: int) -> None:
    assert parse_count(text) == number


@pytest.mark.parametrize(("text", "number"), [("64GB", 64 * 10**9), ("512MiB", 512 * 2**20), ("10", 10)])
def test_bytes(text: str, number: int) -> None:
    assert parse_bytes(text) == number


@pytest.mark.parametrize("text", ["ten", "1.2345k", "-5k", "1 Mx", ""])
def test_what_is_not_a_count(text: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        parse_count(text)


def test_defaults_then_file_then_overrides(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("tokens: 5k\ninner: {depth: 2}\n")
    config = load_config(Outer, file, {"inner.names": "[a, b]"})
    assert (config.tokens, config.inner.depth, config.inner.names) == (5000, 2, ("a", "b"))


@given(st.integers(0, 10**12), st.integers(), st.lists(st.text(max_size=5), max_size=3))
def test_yaml_round_trip(tokens: int, depth: int, names: list[str]) -> None:
    import yaml

    config = Outer(tokens=tokens, inner=Inner(depth=depth, names=tuple(names)))
    again = Outer.model_validate(yaml.safe_load(to_yaml(config)))
    assert again == config
    assert config_digest(again) == config_digest(config)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("inner: {dept: 2}", "unknown key 'inner.dept'; did you mean 'depth'?"),
        ("tokens: many", "'many' is not a size"),
        ("- a\n- b", "must hold keys and values, not a list"),
        ("a: [", "is not valid YAML"),
        ("inner: 3", "inner"),
    ],
)
def test_one_sentence_naming_file_and_key(tmp_path: Path, content: str, sentence: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(content)
    with pytest.raises(UserError) as refusal:
        load_config(Outer, file)
    assert sentence in str(refusal.value)
    assert str(file) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nope\.yaml does not exist"):
        load_config(Outer, tmp_path / "nope.yaml")


def test_an_override_inside_a_single_value_is_refused() -> None:
    with pytest.raises(UserError, match="'tokens' holds a single value"):
        load_config(Outer, None, {"tokens": 3, "tokens.x": 1})


def test_differences_name_dotted_keys() -> None:
    assert differences({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}}) == ["b.c: 2 → 3"]
