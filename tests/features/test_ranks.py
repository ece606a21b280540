"""An index that several processes share: the same bytes for any number of them, after any death."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from saelab.corpora import CorpusConfig, TokenPolicy, pack
from saelab.dictionaries.config import Group as Attribute
from saelab.dictionaries.config import GroupChoice
from saelab.dictionaries.dictionary import Dictionary
from saelab.disk import read_json
from saelab.errors import UserError
from saelab.features import IndexConfig, build, build_index, collect, effects, reading, write
from saelab.ranks import Ranks
from tests.features.conftest import CONTEXT, WIDTH
from tests.forks import Group, Torchrun, wait_for

FEW_ROWS = 2 * 2 * WIDTH * CONTEXT * 5  # keys and values of five: effects are measured in many chunks

END = "to the end of the text"


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of every file."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process as in the ranks."""
    monkeypatch.setattr(effects, "_CACHED_NUMBERS", FEW_ROWS)


@pytest.fixture(scope="module")
def settings(config: IndexConfig, model_folder: Path) -> IndexConfig:
    changes = {"model": str(model_folder), "tokens": 500, "batch": 4, "buffer": 700, "effect_tokens": 200}
    return config.model_copy(update=changes)


@pytest.fixture(scope="module")
def cases(
    settings: IndexConfig, make_dictionary: Callable[..., tuple[Path, Dictionary]], tmp_path_factory: Any
) -> dict[str, IndexConfig]:
    """Settings that differ in what may go wrong."""
    sinks = TokenPolicy(
        context=CONTEXT, cross_documents=False, pad=True, sink_site="blocks.0.resid_post", sink_norm=1.2
    )
    sinking, _ = make_dictionary(policy=sinks.model_dump(mode="json"))
    groups = tuple(Attribute(name=name, values=tuple(f"{name}{n}" for n in range(12))) for name in "abcd")
    supervised, _ = make_dictionary(rule="group", allocation=GroupChoice(groups=groups))
    out = tmp_path_factory.mktemp("alone")
    changes: dict[str, dict[str, Any]] = {
        END: {"tokens": 10**6, "batch": 7, "effect_tokens": 800},
        "cut in the middle of a batch": {},
        "fewer batches than ranks": {"tokens": 40},
        "labels": {"corpus": CorpusConfig(source="microworld")},
        "sinks": {"run": sinking},
        "groups": {"run": supervised, "coactivation_pairs": 4000},
    }
    return {name: settings.model_copy(update={**change, "out": out / name}) for name, change in changes.items()}


@pytest.fixture(scope="module")
def alone(cases: dict[str, IndexConfig]) -> dict[str, dict[str, str]]:
    """What one process makes of each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(effects, "_CACHED_NUMBERS", FEW_ROWS)
        return {name: contents(build_index(case)) for name, case in cases.items()}


def share(ranks: Ranks, cases: dict[str, IndexConfig]) -> list[int]:
    """Index each, and say how many batches and chunks this rank had worked on after each."""
    effects._CACHED_NUMBERS = FEW_ROWS
    done, after = 0, []

    def counted(work: Callable[..., Any]) -> Callable[..., Any]:
        def count(*arguments: Any) -> Any:
            nonlocal done
            done += 1
            return work(*arguments)

        return count

    reading._measured, effects.row_effects = counted(reading._measured), counted(effects.row_effects)
    for case in cases.values():
        build_index(case, ranks=ranks)
        after.append(done)
    return after


NAMES = ("cut in the middle of a batch", "fewer batches than ranks", "labels", "sinks", "groups")


@pytest.mark.parametrize(
    ("size", "names"),
    [
        (2, (END, "labels", "groups")),
        (3, (END, "cut in the middle of a batch", "fewer batches than ranks", "sinks")),
        pytest.param(2, (END, *NAMES), marks=pytest.mark.distributed),
        pytest.param(3, (END, *NAMES), marks=pytest.mark.distributed),
        pytest.param(4, (END, *NAMES), marks=pytest.mark.distributed),
    ],
)
def test_the_same_bytes_for_any_number_of_processes(
    cases: dict[str, IndexConfig],
    alone: dict[str, dict[str, str]],
    tmp_path: Path,
    size: int,
    names: tuple[str, ...],
) -> None:
    shared = {name: cases[name].model_copy(update={"out": tmp_path / "shared" / name}) for name in names}
    ends = Group(tmp_path / "ends", size, share, shared).wait()
    assert [kind for kind, _ in ends] == ["done"] * size
    for name, case in shared.items():
        assert case.out
        assert contents(case.out) == alone[name], name
    said = [(tmp_path / "ends" / f"{rank}.err").read_text() for rank in range(size)]
    assert ["index: " in words for words in said] == [True] + [False] * (size - 1)  # one shows the progress of all
    work = [json.loads(done)[0] for _, done in ends]
    assert min(work) >= max(work) - 2  # one batch and one chunk may be left over
    assert min(work) > 4
    assert sorted(path.name for path in (tmp_path / "shared").iterdir() if path.is_dir()) == sorted(shared)


def test_the_cases_are_what_their_names_say(
    cases: dict[str, IndexConfig], alone: dict[str, dict[str, str]], tokenizer: PreTrainedTokenizerFast
) -> None:
    found = {name: read_json(case.out / "index.json") for name, case in cases.items() if case.out}
    assert [name for name, summary in found.items() if summary["corpus_exhausted"]] == [END]
    assert found["fewer batches than ranks"]["n_positions"] == 2 * CONTEXT
    cut = found["cut in the middle of a batch"]
    assert cut["n_positions"] // CONTEXT % 4
    assert 500 <= cut["n_tokens"] < 500 + CONTEXT
    assert 0 < found["labels"]["effects"]["rows"] < found["labels"]["n_positions"] / CONTEXT
    assert found["labels"]["labels"]
    assert len(found["groups"]["groups"]) == 4
    sinks, case = found["sinks"], cases["sinks"]
    assert case.corpus
    rows = next(pack(case.corpus, tokenizer, TokenPolicy(**sinks["policy"]), sinks["n_positions"] // CONTEXT))
    assert 100 < sinks["n_tokens"] < rows.n_kept - 100
    assert all(len(tables) == 12 for tables in alone.values())


def leaves_its_spill(ranks: Ranks, case: IndexConfig) -> None:
    def stop(*_: Any) -> None:
        raise UserError("stopped before writing")

    build.write_index = stop
    build_index(case, ranks=ranks)


def test_what_is_spilled_is_the_same_and_any_number_of_processes_goes_on(
    cases: dict[str, IndexConfig], alone: dict[str, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "sinks"
    case = cases[name].model_copy(update={"out": tmp_path / "shared" / "index"})
    ends = Group(tmp_path / "ends", 3, leaves_its_spill, case).wait()
    assert ends == [("UserError", "stopped before writing")] + [("SaidElsewhereError", "stopped before writing")] * 2
    single = case.model_copy(update={"out": tmp_path / "single" / "index"})
    with monkeypatch.context() as patch, pytest.raises(UserError, match="stopped"):
        patch.setattr(build, "write_index", write.write_index)
        leaves_its_spill(Ranks(), single)
    spills = [contents(tmp_path / folder / ".index.spill") for folder in ("shared", "single")]
    assert len(spills[0]) > 10
    assert spills[0] == spills[1]
    monkeypatch.setattr(reading, "_measured", None)  # nothing is read again
    assert contents(build_index(case)) == alone[name]


def share_what_differs(ranks: Ranks, configs: list[IndexConfig]) -> None:
    build_index(configs[ranks.rank], ranks=ranks)


def test_ranks_with_other_settings_are_refused(settings: IndexConfig, tmp_path: Path) -> None:
    ours = settings.model_copy(update={"out": tmp_path / "index"})
    ends = Group(tmp_path / "ends", 2, share_what_differs, [ours, ours.model_copy(update={"tokens": 800})]).wait()
    assert sorted(kind for kind, _ in ends) == ["SaidElsewhereError", "UserError"]
    assert all("rank 1 (process " in sentence for _, sentence in ends)
    assert all("settings.tokens: 500 → 800" in sentence for _, sentence in ends)
    assert not list(tmp_path.glob(".index*"))


def reads_another_text(ranks: Ranks, case: IndexConfig) -> None:
    """As on a machine whose file of the same name is another one."""
    if ranks.rank == 1:
        pack = reading.pack

        def other(corpus: CorpusConfig, *arguments: Any, **options: Any) -> Any:
            return pack(corpus.model_copy(update={"source": f"{corpus.source}.other.jsonl"}), *arguments, **options)

        reading.pack = other
    build_index(case, ranks=ranks)


def test_ranks_with_another_text_are_refused(settings: IndexConfig, stories: CorpusConfig, tmp_path: Path) -> None:
    text = tmp_path / "stories.jsonl"
    lines = Path(stories.source).read_text().splitlines()
    text.write_text("\n".join(lines))
    Path(f"{text}.other.jsonl").write_text("\n".join([*lines[:5], *lines[6:]]))
    case = settings.model_copy(update={"corpus": CorpusConfig(source=str(text)), "out": tmp_path / "index"})
    ends = Group(tmp_path / "ends", 2, reads_another_text, case).wait()
    assert ends[0][0] == "UserError"
    assert "the ranks read different texts" in ends[0][1]
    assert ends[1][0] == "SaidElsewhereError"
    assert not (tmp_path / "index").exists()


def dies(ranks: Ranks, case: IndexConfig, victim: int, where: str, call: int) -> None:
    """The victim is killed in the call of that number of a function."""
    module, function = where.split(".")
    module = {"reading": reading, "collect": collect, "effects": effects, "write": write}[module]
    real, calls = getattr(module, function), 0

    def deadly(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and ranks.rank == victim:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)

    setattr(module, function, deadly)
    effects._CACHED_NUMBERS, effects._MARK_EVERY = FEW_ROWS, 2
    build_index(case, ranks=ranks)


@pytest.fixture(scope="module")
def many(settings: IndexConfig) -> IndexConfig:
    """Fifteen batches and six chunks for effects, with marks in between."""
    return settings.model_copy(update={"tokens": 900, "batch": 2, "buffer": 300, "effect_tokens": 10**6})


@pytest.fixture(scope="module")
def whole(many: IndexConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(effects, "_CACHED_NUMBERS", FEW_ROWS)
        return contents(build_index(many.model_copy(update={"out": tmp_path_factory.mktemp("whole") / "index"})))


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("size", "victim", "where", "call"),
    [
        (2, 0, "reading._measured", 3),
        (2, 1, "reading._measured", 3),
        (3, 2, "reading._measured", 1),
        (2, 0, "collect._put", 4),
        (3, 0, "write.summarise", 2),
        (2, 1, "effects.row_effects", 2),
        (3, 2, "effects.row_effects", 1),
        (2, 0, "effects.row_effects", 3),
        (2, 1, "write.neighbours", 1),
        (2, 0, "write.write_json", 1),
    ],
)
def test_a_rank_that_is_killed_is_named_and_any_number_goes_on(
    many: IndexConfig, whole: dict[str, str], tmp_path: Path, size: int, victim: int, where: str, call: int
) -> None:
    case = many.model_copy(update={"out": tmp_path / "index"})
    ends = Group(tmp_path / "ends", size, dies, case, victim, where, call).wait()
    assert ends[victim][0] == "killed"
    others = [end for rank, end in enumerate(ends) if rank != victim]
    assert {kind for kind, _ in others} <= {"LostRankError", "SaidElsewhereError"}
    assert all(f"rank {victim} (process " in sentence for _, sentence in others)
    # A helper may die when nobody waits for its part any more: then the index is there, and whole.
    assert not (tmp_path / "index").exists() or (where == "write.neighbours" and contents(tmp_path / "index") == whole)
    shutil.rmtree(tmp_path / "ends")
    if call % 2:
        assert contents(build_index(case)) == whole
    else:
        ends = Group(tmp_path / "ends", 5 - size, share, {"again": case}).wait()
        assert {kind for kind, _ in ends} == {"done"}
        assert contents(tmp_path / "index") == whole
    assert not (tmp_path / ".index.spill").exists()


@pytest.mark.distributed
def test_under_torchrun_a_dead_rank_is_named_and_max_restarts_goes_on(
    settings: IndexConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # chunks for effects as the command has them
    changes = {"tokens": 12_000, "batch": 2, "buffer": 3_000, "effect_tokens": 1_000, "quarter_examples": 3}
    out = tmp_path / "index"
    options = [word for key, value in changes.items() for word in (f"--{key}", value)]
    words = "index", settings.run, "--model", settings.model, "--corpus.source", "demo", "--out", out, *options
    run = Torchrun(tmp_path / "said", 2, *words, options=["--max-restarts", "1"])
    mark = tmp_path / ".index.spill" / "state.json"
    wait_for(mark.exists)
    victim = run.pid(1)
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    code, said = run.end()
    assert code == 0, said
    assert said.count(f"saelab: rank 1 (process {victim} on ") == 1
    assert said.count("saelab: ") == 1
    assert said.count("the feature index is in") == 1
    assert "Traceback" not in said
    alone = {**changes, "corpus": CorpusConfig(source="demo"), "out": tmp_path / "alone"}
    assert contents(out) == contents(build_index(settings.model_copy(update=alone)))
