"""The scripts that make the bundled model and corpus, on minuscule settings."""

import gzip
import json
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from saelab.corpora.microworld import Microworld, words
from saelab.corpora.microworld.ioi import sample_prompts
from saelab.errors import UserError

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))  # the scripts are run, not installed

import make_demo_corpus  # noqa: E402  # pyright: ignore[reportMissingImports]
import train_demo_model  # noqa: E402  # pyright: ignore[reportMissingImports]
from demo_model import batches, card, measure, tokenizer, training  # noqa: E402  # pyright: ignore[reportMissingImports]

ROOT = SCRIPTS.parent
SETTINGS = training.Settings(steps=20, layers=1, width=16, heads=2, context=32, warmup=5)
ROWS = {"stories": 1, "novels": 1, "microworld": 2}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stand-ins for the two text files, written by the microworld."""
    folder = tmp_path_factory.mktemp("text")
    for seed, name in enumerate(train_demo_model.FILES.values()):
        documents = (document.text for document in islice(Microworld(seed).documents(), 60))
        (folder / name).write_bytes(gzip.compress("\n<|endoftext|>\n".join(documents).encode()))
    return folder


@pytest.fixture(scope="module")
def bpe(text: Path) -> Tokenizer:
    """A tokenizer trained on less than the real one."""
    tokenizer.COPIES, tokenizer.DOCUMENTS = 100, 100
    documents = [batches.read_documents(text / name) for name in train_demo_model.FILES.values()]
    return tokenizer.train_tokenizer(documents)


@pytest.fixture
def rows(text: Path, bpe) -> batches.Batches:
    files = {
        source: batches.tokenise(bpe, batches.read_documents(text / name))
        for source, name in train_demo_model.FILES.items()
    }
    return batches.Batches(bpe, files, ROWS, width=SETTINGS.context + 1, seed=0)


def test_listed_words_are_single_tokens(bpe):
    assert bpe.token_to_id(tokenizer.END) == 0
    assert all(len(bpe.encode(" " + word).ids) == 1 for word in tokenizer.whole_words())


def test_documents_are_read_and_held_out():
    documents = [str(i) for i in range(40)]
    train, held_out = batches.hold_out(documents)
    assert (train, held_out) == (documents[:38], documents[38:])


def test_tokens_decode_to_the_documents(bpe):
    documents = ["The old dog ran.\n" * 3000, "A second one."]  # the first is encoded in several pieces
    tokens = batches.tokenise(bpe, documents)
    assert [bpe.decode(part[1:].tolist()) for part in np.split(tokens.ids, tokens.starts[1:])] == documents
    assert all(tokens.ids[tokens.starts] == 0)


def test_a_batch_is_a_function_of_the_step(rows: batches.Batches):
    assert all(np.array_equal(a, b) for a, b in zip(rows.batch(7), rows.batch(7), strict=True))
    assert not np.array_equal(rows.batch(7)[0], rows.batch(8)[0])
    assert rows.batch(7)[0].shape == rows.batch(7)[1].shape == (4, 33)


def test_the_answers_of_ioi_sentences_are_known(bpe):
    names = {" " + person.name for person in words.people_half("train")}
    for row, is_answer in batches.microworld_rows(bpe, Microworld(0, kinds={"ioi": 1}), 0, count=3, width=200):
        answers = np.flatnonzero(is_answer)
        assert len(answers) >= 4
        assert all(bpe.decode([row[position]]) in names for position in answers)
        assert all(bpe.decode([row[position - 1]]) == " to" for position in answers)


def test_the_learning_rate_warms_up_and_decays():
    rates = [training.learning_rate(SETTINGS, step) for step in range(21)]
    assert rates[0] == pytest.approx(2e-4)
    assert max(rates) == rates[5] == pytest.approx(1e-3)
    assert rates[20] == pytest.approx(1e-4)


def train(rows: batches.Batches, checkpoint: Path, until: int | None = None) -> training.Trainer:
    trainer = training.Trainer(SETTINGS, rows, checkpoint)
    trainer.resume()
    trainer.run(every_seconds=1e9, on_pause=lambda _: None, until=until)
    return trainer


def test_stopped_and_resumed_is_the_same_as_uninterrupted(rows: batches.Batches, tmp_path: Path):
    whole = train(rows, tmp_path / "a" / "checkpoint.pt")
    train(rows, tmp_path / "b" / "checkpoint.pt", until=9)
    resumed = train(rows, tmp_path / "b" / "checkpoint.pt")
    assert resumed.step == whole.step == 20
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name


def test_other_settings_are_refused(rows: batches.Batches, tmp_path: Path):
    train(rows, tmp_path / "checkpoint.pt", until=1)
    other = training.Settings(**{**vars(SETTINGS), "seed": 1})
    with pytest.raises(UserError, match="seed = 0, not 1"):
        training.Trainer(other, rows, tmp_path / "checkpoint.pt").resume()


def test_the_folder_reads_back_and_is_measured(rows: batches.Batches, bpe, tmp_path: Path):
    model = training.build_model(SETTINGS)
    card.write_folder(model, bpe, tmp_path / "model")
    reread, same = card.read_folder(tmp_path / "model")
    assert all(tensor.dtype == torch.float16 for tensor in load_file(tmp_path / "model" / "model.safetensors").values())
    assert reread.config.activation_function == "gelu_new"
    assert same.encode("Then, Mary ran.").ids == bpe.encode("Then, Mary ran.").ids
    ids = torch.from_numpy(rows.batch(0)[0])[:, :32]
    torch.testing.assert_close(reread(ids).logits, model(ids).logits, atol=1e-3, rtol=0)
    # an untrained model is about as unsure as the uniform distribution: log 4096 = 8.32 nats
    assert measure.loss(reread, rows.batch(0)[0]) == pytest.approx(8.32, abs=0.1)
    scores = measure.ioi_scores(reread, same, sample_prompts(32))
    assert scores["prompts"] == 32
    assert abs(scores["logit_difference"]) < 0.2


def test_end_logits_ignore_the_padding(bpe):
    model = training.build_model(SETTINGS).eval()
    together = measure.end_logits(model, bpe, ["Then, Mary", "Mary and Tom were working at the park."])
    alone = measure.end_logits(model, bpe, ["Then, Mary"])
    torch.testing.assert_close(together[:1], alone)


def test_the_command_survives_a_kill(text: Path, bpe: Tokenizer, tmp_path: Path):
    """Run the script for real, kill it after its first checkpoint, run it again to the end."""
    script = tmp_path / "run.py"
    script.write_text(_SMALL_RUN.format(scripts=str(SCRIPTS)))
    (tmp_path / "work").mkdir()
    bpe.save(str(tmp_path / "work" / "tokenizer.json"))
    command = [sys.executable, str(script), "--text", str(text), "--tokens", "5K"]
    command += ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 300
        while not (tmp_path / "work" / "checkpoint.pt").exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "out" / "training.json").read_text())
    assert facts["tokens"] == 39 * 4 * 64
    assert "| 3 |" in (tmp_path / "out" / "README.md").read_text()


_SMALL_RUN = """
import sys
sys.path.insert(0, {scripts!r})
import train_demo_model as script
from demo_model.training import Settings

script.settings_for = lambda tokens, seed: Settings(steps=tokens // 128, layers=1, width=16, heads=2, context=64)
script.ROWS = {{"stories": 1, "novels": 1, "microworld": 2}}
script.SECONDS_BETWEEN_CHECKPOINTS = 0
script.VALIDATION_ROWS = 4
script.PROMPTS = 8
script.main()
"""


def test_a_missing_text_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["train_demo_model.py", "--text", str(tmp_path)])
    with pytest.raises(UserError, match=r"there is no tinystories\.txt\.gz in"):
        train_demo_model.main()


def test_stories_end_at_a_sentence(bpe):
    fast = tokenizer.for_transformers(bpe, context=32)
    ids = bpe.encode('The dog ran. "Stop!" The cat').ids
    assert make_demo_corpus.whole_story(ids, fast) == 'The dog ran. "Stop!"'
    assert make_demo_corpus.whole_story([*bpe.encode("The dog ran. The").ids, 0, 5], fast) == "The dog ran. The"
    assert make_demo_corpus.whole_story(bpe.encode("The dog").ids, fast) == ""


def test_the_corpus_keeps_what_fits():
    stories = [document.text for document in islice(Microworld(0).documents(), 50)]
    kept = make_demo_corpus.fitting(stories, 1000)
    assert 0 < len(kept) < 50
    assert len(make_demo_corpus.compress(kept)) <= 1000 < len(make_demo_corpus.compress(stories[: len(kept) + 1]))
    lines = gzip.decompress(make_demo_corpus.compress(kept)).decode().splitlines()
    assert [json.loads(line)["text"] for line in lines] == kept


BUNDLED = ROOT / "artifacts" / "demo-model"
CORPUS = ROOT / "artifacts" / "demo-corpus.jsonl.gz"


@pytest.fixture(scope="module")
def bundled():
    return card.read_folder(BUNDLED)


def test_what_is_bundled_is_small():
    assert sum(path.stat().st_size for path in BUNDLED.iterdir()) <= 12_000_000
    assert CORPUS.stat().st_size <= 1_000_000


def test_the_bundled_tokenizer_knows_the_listed_words(bundled):
    _, bpe = bundled
    assert bpe.get_vocab_size() == 4096
    assert all(len(bpe.encode(" " + word).ids) == 1 for word in tokenizer.whole_words())


@pytest.mark.parametrize("template", [1, 2, 3])
def test_the_bundled_model_identifies_the_indirect_object(bundled, template: int):
    model, bpe = bundled
    prompts = sample_prompts(100, seed=5, split="test", templates=(template,))
    assert measure.ioi_scores(model, bpe, prompts)["accuracy"] >= 0.95


def test_the_card_says_what_was_measured(bundled):
    facts = json.loads((BUNDLED / "training.json").read_text())
    text = (BUNDLED / "README.md").read_text()
    assert all(f"{loss:.3f}" in text for loss in facts["validation_loss"].values())
    rows = np.stack([ids for ids, _ in batches.microworld_rows(bundled[1], Microworld(1, "test"), 0, 8, 257)])
    assert measure.loss(bundled[0], rows.astype(np.int64)) == pytest.approx(
        facts["validation_loss"]["microworld"], abs=0.2
    )


def test_the_bundled_corpus_is_a_story_a_line():
    lines = gzip.decompress(CORPUS.read_bytes()).decode().splitlines()
    stories = [json.loads(line)["text"] for line in lines]
    assert len(set(stories)) == len(stories) > 5000
    assert CORPUS.read_bytes()[4:8] == bytes(4)  # no time stamp
