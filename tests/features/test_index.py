"""The read side: questions across latents, threads, and what it says of damage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from saelab.errors import UserError
from saelab.features import FeatureIndex
from saelab.features.lookup import SortedTable
from saelab.features.schema import EXAMPLES, LATENTS, TABLES, TOKENS
from tests.features.conftest import D_SAE


@pytest.fixture
def copy(index: FeatureIndex, tmp_path: Path) -> Path:
    return Path(shutil.copytree(index.path, tmp_path / "index"))


def edit_summary(path: Path, change: Callable[[dict], object]) -> None:
    summary = json.loads((path / "index.json").read_text())
    change(summary)
    (path / "index.json").write_text(json.dumps(summary))


def test_the_table_of_latents_has_a_row_each(index: FeatureIndex) -> None:
    table = index.latents()
    assert table.column("latent").to_pylist() == list(range(D_SAE))
    row = table.slice(9, 1).to_pylist()[0]
    statistics = index.latent(9)
    assert row["density"] == statistics.density
    assert row["top_token"] == statistics.top_tokens[0]
    assert row["promoted"] == index.logits(9).promoted[0].id
    assert row["label"] is None  # these stories have no labels


def test_the_table_sorts_filters_and_pages(index: FeatureIndex) -> None:
    densities = sorted((index.latent(latent).density for latent in range(D_SAE)), reverse=True)
    page = index.latents(sort="density", descending=True, limit=5, offset=2)
    assert page.column("density").to_pylist() == densities[2:7]
    alive = index.latents(between={"n_active": (1, 10**9), "latent": (0, 20)})
    assert 7 not in alive.column("latent").to_pylist()
    assert max(alive.column("latent").to_pylist()) == 20


def test_nulls_come_last_in_both_directions(index: FeatureIndex) -> None:
    for descending in (False, True):
        assert (
            index.latents(sort="max_activation", descending=descending).column("max_activation").to_pylist()[-1] is None
        )


@pytest.mark.parametrize("column", ["densty", "latent; DROP TABLE latents", "1"])
def test_columns_that_do_not_exist_never_reach_a_query(index: FeatureIndex, column: str) -> None:
    with pytest.raises(UserError, match="is not in the table of latents"):
        index.latents(sort=column)
    with pytest.raises(UserError, match="is not in the table of latents"):
        index.latents(between={column: (0, 1)})


@pytest.mark.parametrize("latent", [-1, D_SAE])
def test_a_latent_outside_the_dictionary_is_refused(index: FeatureIndex, latent: int) -> None:
    with pytest.raises(UserError, match=f"latents 0 to {D_SAE - 1}"):
        index.latent(latent)


def test_a_token_outside_the_text_is_refused(index: FeatureIndex) -> None:
    with pytest.raises(UserError, match="not in the indexed text"):
        index.window(index.summary["n_positions"])


def test_token_texts_keep_their_spaces(index: FeatureIndex) -> None:
    assert index.vocabulary[index.find_tokens("t")[0]] == "t"
    assert " " in index.vocabulary
    assert len(index.vocabulary) == 260  # three ids of the embedding are unknown to the tokenizer
    assert index.vocabulary[-1] == ""


def test_finding_tokens_prefers_the_exact_text(index: FeatureIndex) -> None:
    assert [index.vocabulary[id] for id in index.find_tokens("T", limit=2)] == ["T", "t"]
    assert index.find_tokens("  ") == []


def test_hostile_search_texts_are_only_texts(index: FeatureIndex) -> None:
    assert index.search_label("x' OR 1=1 --") == []
    assert index.find_tokens("%'; DROP") == []


def test_a_path_with_quotes_is_just_a_path(copy: Path) -> None:
    odd = copy.rename(copy.with_name("it's; an 'index'"))
    assert FeatureIndex(odd).latents().num_rows == D_SAE


def test_threads_share_an_index(index: FeatureIndex) -> None:
    def page(latent: int) -> tuple:
        return (
            index.latent(latent).density,
            [e.token for e in index.examples(latent)],
            index.logits(latent),
            index.search_promoted(index.logits(latent).promoted[0].id),
            index.latents(sort="density", limit=3).column("latent").to_pylist(),
        )

    latents = [latent % D_SAE for latent in range(48)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(page, latents)) == [page(latent) for latent in latents]


def test_stretches_run_over_the_borders_of_row_groups(tmp_path: Path) -> None:
    rows = {"token": range(50), "id": range(100, 150), "document": [0] * 50, "position": [0] * 50, "row": [0] * 50,
            "real": [True] * 50, "kept": [True] * 50, "loss": [0.0] * 50}  # fmt: skip
    pq.write_table(pa.table(rows, schema=TOKENS.columns), TOKENS.path(tmp_path), row_group_size=7)
    found = SortedTable(TOKENS, tmp_path).stretches([(5, 23), (0, 1), (48, 50)], "id")
    assert [part.tolist() for part in found] == [list(range(105, 123)), [100], [148, 149]]


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="saelab index"):
        FeatureIndex(tmp_path / "features")


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_missing_file_is_named(copy: Path, table) -> None:
    table.path(copy).unlink()
    with pytest.raises(UserError, match=rf"{table.name}\.parquet is missing"):
        FeatureIndex(copy)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_torn_file_is_named(copy: Path, table) -> None:
    content = table.path(copy).read_bytes()
    table.path(copy).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=rf"{table.name}\.parquet is damaged"):
        FeatureIndex(copy)


def test_damage_inside_a_file_is_named_when_it_is_met(copy: Path) -> None:
    path = EXAMPLES.path(copy)
    content = bytearray(path.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    path.write_bytes(content)
    index = FeatureIndex(copy)
    with pytest.raises(UserError, match=r"examples\.parquet is damaged"):
        index.examples(0)


def test_an_index_that_disappears_is_named(copy: Path) -> None:
    index = FeatureIndex(copy)
    shutil.rmtree(copy)
    with pytest.raises(UserError, match="missing"):
        index.examples(0)
    with pytest.raises(UserError, match="latents"):
        index.latents()


def test_other_columns_are_refused(copy: Path) -> None:
    path = LATENTS.path(copy)
    pq.write_table(pq.read_table(path).drop_columns(["density"]), path)
    with pytest.raises(UserError, match="other columns"):
        FeatureIndex(copy)


def test_a_newer_schema_is_refused(copy: Path) -> None:
    edit_summary(copy, lambda summary: summary.update(schema_version=99))
    with pytest.raises(UserError, match="schema version 99; update saelab"):
        FeatureIndex(copy)


def test_an_older_schema_is_refused_with_the_command_that_makes_it_again(copy: Path) -> None:
    edit_summary(copy, lambda summary: summary.update(schema_version=1))
    with pytest.raises(UserError, match=r"earlier saelab \(schema version 1.*saelab index RUN --overwrite"):
        FeatureIndex(copy)


def test_latents_of_a_supervised_dictionary_have_a_group_and_a_value(copy: Path) -> None:
    groups = [{"name": "IO", "values": ["Mary", "John"]}, {"name": "Pos", "values": ["ABB"]}]
    edit_summary(copy, lambda summary: summary.update(groups=groups))
    index = FeatureIndex(copy)
    found = [index.meaning(latent) for latent in range(4)]
    assert found == [("IO", "Mary"), ("IO", "John"), ("Pos", "ABB"), None]


def test_latents_that_were_learnt_have_no_meaning_of_their_own(index: FeatureIndex) -> None:
    assert index.meaning(0) is None


def test_a_damaged_summary_is_refused(copy: Path) -> None:
    edit_summary(copy, lambda summary: summary.pop("d_sae"))
    with pytest.raises(UserError, match="lacks d_sae"):
        FeatureIndex(copy)
    (copy / "index.json").write_text("{")
    with pytest.raises(UserError, match=r"index\.json is damaged"):
        FeatureIndex(copy)
