"""How fast is a harvest? Against a bare Hugging Face forward pass that ends at the same layer.

    python benchmarks/harvest.py                        # both models; a table, and benchmarks/results/harvest.json
    python benchmarks/harvest.py --models demo --rounds 3
    python benchmarks/harvest.py --long 2M              # the command itself: tokens/s, bytes, peak memory

A harvest is `saelab.activations.harvest.harvest` from text to a finished directory: tokenisation, the model, shards on
the disk with checksums. Bare is the same model cut off behind its middle layer, called through transformers alone with
fused attention on token ids that are there already; its results are thrown away. SAELens is its activation store, text
to activations, nothing on disk, where `make peers` has installed it. All take turns over equally many tokens, so that a
shared machine slows all alike: read the ratios. The models are
the bundled one and one with random weights in GPT-2 small's shape; text and GPT-2's tokenizer are those of --data. On
two quiet cores the turns take about 8 minutes; `--long 2M` takes 2 minutes for the bundled model and about 4 for the
other, which it reads behind its first block.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

from saelab.activations.config import HarvestConfig
from saelab.activations.harvest import harvest
from saelab.corpora.packing import pack
from saelab.disk import read_json, write_json
from saelab.models import LanguageModel

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "harvest.json"
PEERS = ROOT / ".venv-peers" / "bin" / "python"
CONTEXT, BATCH = 128, 16
DEMO, GPT2 = "demo", "gpt2-small-shape"


@dataclass(frozen=True)
class Case:
    """A model, and where in it."""

    model: str
    """What `saelab harvest --model` is told."""
    layer: int
    """The middle one, whose output is the site."""
    turn: int
    """Tokens in one turn."""
    long_layer: int
    """Of the long run."""

    def sites(self, three: bool) -> tuple[str, ...]:
        layers = (0, self.layer // 2, self.layer) if three else (self.layer,)
        return tuple(f"blocks.{layer}.resid_post" for layer in dict.fromkeys(layers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=(DEMO, GPT2), default=(DEMO, GPT2))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--turn", type=int, metavar="TOKENS", help="tokens in a turn, instead of about ten seconds")
    parser.add_argument("--long", metavar="TOKENS", help="one `saelab harvest` of so many tokens instead")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="text/ and gpt2-tokenizer/")
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    report = read_json(arguments.json) if arguments.json.exists() else {}
    report |= {"torch": torch.__version__, "threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.models:
            if name == DEMO:
                case = Case(DEMO, layer=2, turn=arguments.turn or 131_072, long_layer=2)
            else:
                model = random_gpt2(Path(folder) / name, arguments.data / "gpt2-tokenizer")
                case = Case(str(model), layer=5, turn=arguments.turn or 16_384, long_layer=0)
            kind = "long" if arguments.long else "turns"
            run = long_run(case, arguments.long, arguments.data / "text", Path(folder)) if arguments.long else None
            run = run or turns(case, arguments.rounds, arguments.data / "text", Path(folder))
            report.setdefault(name, {})[kind] = run
            print(f"\n{name}, {kind}\n" + "\n".join(f"  {key:24}{value}" for key, value in lines(run)), flush=True)
            write_json(arguments.json, report)


def lines(run: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in run.items():
        if isinstance(value, dict):
            yield key, "  ".join(f"{inner} {number:,.4g}" for inner, number in value.items())
        else:
            yield key, f"{value:,.4g}" if isinstance(value, float) else str(value)


def random_gpt2(folder: Path, tokenizer: Path) -> Path:
    """GPT-2 small's shape with random weights and GPT-2's tokenizer, as a Hugging Face folder."""
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config()).save_pretrained(folder)
    GPT2Tokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


def settings(case: Case, text: Path, tokens: int, three: bool = False) -> HarvestConfig:
    return HarvestConfig.model_validate(
        {
            "model": case.model, "sites": case.sites(three), "tokens": tokens, "batch": BATCH,
            "corpus": {"source": str(text)}, "policy": {"context": CONTEXT}, "device": "cpu",
        }
    )  # fmt: skip


def turns(case: Case, rounds: int, text: Path, folder: Path) -> dict[str, Any]:
    """Tokens per second of each, and its share of the bare pass' speed in the same round; medians over rounds."""
    loaded = LanguageModel.load(case.model, device="cpu")
    out = folder / "activations"

    def made(three: bool) -> Callable[[], Any]:
        config = settings(case, text, case.turn, three)
        return lambda: harvest(config, out, overwrite=True, model=loaded)

    with saelens(case, text, folder) as peer:
        runs = {"bare": bare(case, loaded, text), "harvest, one site": made(False), "harvest, three sites": made(True)}
        runs |= {"SAELens, one site": peer} if peer else {}
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(rounds + 1):
            for name, run in runs.items():
                started = time.perf_counter()
                told = run()
                took = told if isinstance(told, float) else time.perf_counter() - started
                if turn:  # the first one warms up
                    seconds[name].append(took)
    speed = {
        name: {
            "tokens/s": case.turn / statistics.median(took),
            "of bare": statistics.median(b / own for b, own in zip(seconds["bare"], took, strict=True)),
        }
        for name, took in seconds.items()
    }
    sites = ", ".join(case.sites(True))
    return {"tokens in a turn": case.turn, "sites": sites, "context x batch": f"{CONTEXT} x {BATCH}", **speed}


def bare(case: Case, loaded: LanguageModel, text: Path) -> Callable[[], None]:
    """The blocks up to the site and nothing else, on ids that are ready."""
    config = settings(case, text, case.turn)
    path = ROOT / "artifacts" / "demo-model" if case.model == DEMO else case.model
    plain = cut_off(AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="sdpa"), case)
    passes = pack(config.corpus, loaded.tokenizer, config.policy, BATCH)  # pyright: ignore[reportArgumentType]
    ids = [rows.ids for rows in islice(passes, case.turn // (CONTEXT * BATCH))]

    def run() -> None:
        for row_ids in ids:
            plain(row_ids, use_cache=False)

    return run


def cut_off(whole: Any, case: Case) -> Any:
    """A GPT-2 that ends with the middle block's output."""
    plain = whole.eval().transformer
    plain.h, plain.ln_f = plain.h[: case.layer + 1], nn.Identity()
    return plain


@contextmanager
def saelens(case: Case, text: Path, folder: Path) -> Iterator[Callable[[], float] | None]:
    """A turn of SAELens' store, as the seconds that it took; None where it isn't installed."""
    if not PEERS.exists() or subprocess.run([PEERS, "-c", "import sae_lens"], capture_output=True).returncode:
        print("SAELens isn't in .venv-peers (make peers); it is left out", file=sys.stderr)
        yield None
        return
    path = ROOT / "artifacts" / "demo-model" if case.model == DEMO else Path(case.model)
    stories = gzip.decompress((text / "tinystories.txt.gz").read_bytes()).decode().split("<|endoftext|>")
    write_json(folder / "stories.json", stories)
    told = {
        "shape": json.loads((path / "config.json").read_text()), "tokenizer": str(path), "site": case.sites(False)[0],
        "text": str(folder / "stories.json"), "context": CONTEXT, "batch": BATCH,
    }  # fmt: skip
    write_json(folder / "saelens.json", told)
    command = [PEERS, ROOT / "benchmarks" / "saelens_store.py", folder / "saelens.json"]
    with (folder / "saelens.log").open("w") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    if process.stdout.readline().strip() != "ready":
        raise RuntimeError("SAELens' store did not start: " + (folder / "saelens.log").read_text()[-2000:])

    def run() -> float:
        print(case.turn, file=process.stdin, flush=True)
        return float(process.stdout.readline())  # pyright: ignore[reportOptionalMemberAccess]

    try:
        yield run
    finally:
        process.stdin.close()
        process.wait()


def long_run(case: Case, tokens: str, text: Path, folder: Path) -> dict[str, Any]:
    """`saelab harvest` as people run it, in a process of its own."""
    out, site = folder / "long", f"blocks.{case.long_layer}.resid_post"
    command = [
        sys.executable, "-m", "saelab", "harvest", "--model", case.model, "--sites", f"[{site}]", "--tokens", tokens,
        "--corpus.source", str(text), "--policy.context", str(CONTEXT), "--batch", str(BATCH), "--out", str(out),
        "--overwrite",
    ]  # fmt: skip
    started = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise RuntimeError(f"saelab harvest ended with status {os.waitstatus_to_exitcode(status)}")
    manifest = read_json(out / "manifest.json")
    stored = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return {
        "site": site, "tokens": manifest["n_tokens"], "kept": manifest["n_kept"], "shards": len(manifest["shards"]),
        "seconds, all": seconds, "tokens/s, all": manifest["n_tokens"] / seconds, "bytes": stored,
        "bytes a token": stored / manifest["n_tokens"], "peak resident GB": usage.ru_maxrss / 1e6,
        "CPU seconds": usage.ru_utime + usage.ru_stime,
    }  # fmt: skip


if __name__ == "__main__":
    main()
