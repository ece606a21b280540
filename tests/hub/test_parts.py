"""Small pieces: references, paths of this machine, figures, and how a dictionary of a listing is chosen."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saelab.errors import UserError
from saelab.hub.drawing import Point, histogram, points
from saelab.hub.listing import Listing, RemoteFile, is_safe
from saelab.hub.privacy import is_machine_path, without_machine_paths
from saelab.hub.reference import Reference, parse

OWN = ("config.json", "dictionary.safetensors", "golden.safetensors")


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("a/b", Reference("a/b")),
        ("a-1/b.c:x/y", Reference("a-1/b.c", "x/y")),
        ("a/b:x@v1", Reference("a/b", "x", "v1")),
        ("a/b@refs/pr/3", Reference("a/b", None, "refs/pr/3")),
    ],
)
def test_references_read_and_write(text: str, reference: Reference) -> None:
    assert parse(text) == reference
    assert str(reference) == text


@given(st.text(max_size=30))
def test_any_text_is_a_reference_or_none(text: str) -> None:
    reference = parse(text)
    assert reference is None or str(reference) == text


@pytest.mark.parametrize("path", ["/home/me/x", "~/x", "../x", "hf:/data/x", "C:\\Users\\me", "/"])
def test_paths_of_this_machine(path: str) -> None:
    assert is_machine_path(path)
    value, cut = without_machine_paths({"a": [{"b": path}]})
    assert cut == ["a.b"]
    assert not is_machine_path(value["a"][0]["b"])


@pytest.mark.parametrize(
    "text", ["gpt2", "google/gemma-2-2b", "microworld", "hf:a/b", "https://x/y", "a: b", "", "x\n/y"]
)
def test_what_is_no_path_stays(text: str) -> None:
    assert without_machine_paths([text, 1, None]) == ([text, 1, None], [])


def test_figures_are_well_formed_and_to_scale() -> None:
    svg = ElementTree.fromstring(histogram([0, 1, 2], [1, 4], "a < b", "x & y", "n"))
    heights = [float(bar.get("height", 0)) for bar in svg.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert heights[1] == pytest.approx(4 * heights[0], abs=0.2)
    svg = ElementTree.fromstring(points([Point("<a>", 1, 0.5, 0.4, 0.6), Point("b", 2, 1.0)], "t", "x", "y"))
    low, high = (float(dot.get("cy", 0)) for dot in svg.iter("{http://www.w3.org/2000/svg}circle"))
    assert low > high  # up is more
    assert "<a>" in [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]


def test_a_single_point_has_room() -> None:
    ElementTree.fromstring(points([Point("only", 16.0, 0.0)], "t", "x", "y"))


def listing(*ids: str) -> Listing:
    names = [f"{id}/{name}".lstrip("/") for id in ids for name in OWN]
    return Listing("u/r", "0" * 40, {name: RemoteFile(1, None) for name in names}, from_cache=False)


@pytest.mark.parametrize(
    ("ids", "id", "chosen"),
    [
        (["a/x"], None, "a/x"),
        (["a/x", "b/x"], "b", "b/x"),
        (["a", "a/x"], "a", "a"),
        (["a/x", "a/xy"], "a/x/", "a/x"),
        ([""], None, ""),
    ],
)
def test_the_dictionary_that_is_meant(ids: list[str], id: str | None, chosen: str) -> None:
    assert listing(*ids).choose(id).id == chosen


@pytest.mark.parametrize(("ids", "id"), [(["a/x", "a/y"], None), (["a/x", "a/y"], "a"), (["a/x"], "x"), ([], None)])
def test_none_or_several(ids: list[str], id: str | None) -> None:
    with pytest.raises(UserError, match="holds"):
        listing(*ids).choose(id)


def test_the_copy_for_saelens_is_no_dictionary_of_its_own() -> None:
    files = listing("a/x").files | {
        f"a/x/saelens/{n}": RemoteFile(1, None) for n in ("cfg.json", "sae_weights.safetensors")
    }
    assert [one.id for one in Listing("u/r", "", files, from_cache=False).dictionaries()] == ["a/x"]


@given(st.text(min_size=1, max_size=20))
def test_safe_names_stay_below_their_folder(name: str) -> None:
    from pathlib import PurePosixPath, PureWindowsPath

    if is_safe(name):
        assert not PureWindowsPath(name).anchor
        assert ".." not in PureWindowsPath(name).parts
        assert PurePosixPath("/a/b", name).is_relative_to("/a/b")
