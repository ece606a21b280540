"""What does `saelab index` cost beside the language model's bare forward pass, and what do several processes save?

    python benchmarks/index.py                          # GPT-2 small's shape, 24,576 latents, 1M tokens: a whole index
    python benchmarks/index.py --tokens 100k            # a tenth of it: what is done once weighs ten times as much
    python benchmarks/index.py --model demo --tokens 200k
    python benchmarks/index.py --ranks 2 --tokens 50k   # one process against torchrun, a thread each, in turns

One run is everything that `saelab index` does, from text to the finished directory, effects on the loss included, by
the same code. Every few seconds it stands still while the bare pass has a turn on 16 rows of the same text: the model
with its unembedding, called through transformers alone with fused attention on ids that are ready. So a shared machine
slows both alike: read the ratio. The dictionary is random (TopK, k = 32), and so are the weights of GPT-2's shape; text
and GPT-2's tokenizer are those of --data. On two quiet cores the default takes about 20 minutes and 2 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.harvest import random_gpt2  # noqa: E402
from saelab.config import load_config  # noqa: E402
from saelab.corpora import CorpusConfig, TokenPolicy, pack  # noqa: E402
from saelab.dictionaries.config import ActivationAffinity, DictionaryConfig, TokenChoice  # noqa: E402
from saelab.dictionaries.dictionary import Dictionary  # noqa: E402
from saelab.features import IndexConfig, build, write  # noqa: E402
from saelab.features.coactivation import PairCounts  # noqa: E402
from saelab.models import LanguageModel, Site  # noqa: E402

DEMO, CONTEXT, BATCH, K = "demo", 128, 16, 32
TURN_EVERY_S = 5.0  # seconds of the index between two turns of the bare pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gpt2-small-shape", choices=(DEMO, "gpt2-small-shape"))
    parser.add_argument("--latents", type=int, default=24_576)
    parser.add_argument("--tokens", default="1M", help="tokens to index")
    parser.add_argument("--effect_tokens", default="100k", help="as saelab index has it")
    parser.add_argument("--ranks", type=int, help="one process against so many, in place of the bare pass")
    parser.add_argument("--rounds", type=int, default=2, help="with --ranks: turns of each")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="text/ and gpt2-tokenizer/")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        demo = arguments.model == DEMO
        model = DEMO if demo else str(random_gpt2(folder / "model", arguments.data / "gpt2-tokenizer"))
        corpus = CorpusConfig(source=DEMO if demo else str(arguments.data / "text"))
        loaded = LanguageModel.load(model, device="cpu")
        random_dictionary(folder / "run", loaded, arguments.latents)
        options = {
            "run": str(folder / "run"), "model": model, "corpus.source": corpus.source, "device": "cpu",
            "tokens": arguments.tokens, "effect_tokens": arguments.effect_tokens, "batch": str(BATCH),
        }  # fmt: skip
        if arguments.ranks:
            report = divided(options, arguments.ranks, arguments.rounds, folder)
        else:
            path = ROOT / "artifacts" / "demo-model" if demo else Path(model)
            report = beside_bare(load_config(IndexConfig, None, options), loaded, path)
    report = {**vars(arguments), "threads": torch.get_num_threads(), "load": round(os.getloadavg()[0], 1), **report}
    print(json.dumps({key: value for key, value in report.items() if key != "data"}, indent=1))


def random_dictionary(run: Path, model: LanguageModel, d_sae: int) -> None:
    """A dictionary with random directions behind the middle block."""
    site = Site.parse(f"blocks.{model.n_layers // 2}.resid_post")
    generator = torch.Generator().manual_seed(0)
    weights = torch.nn.functional.normalize(torch.randn(d_sae, model.width(site), generator=generator), dim=1)
    config = DictionaryConfig(
        architecture="topk", d_in=model.width(site), d_sae=d_sae, k=K, affinity=ActivationAffinity(),
        allocation=TokenChoice(), rule="topk", scale=1.0, site=str(site), model=model.name,
        model_fingerprint=model.fingerprint, tokenizer_fingerprint=model.tokenizer_fingerprint or "",
        policy=TokenPolicy(context=CONTEXT).model_dump(mode="json"), tokens_trained=0, saelab_version="0",
    )  # fmt: skip
    zeros = torch.zeros(model.width(site))
    dictionary = Dictionary(weights, weights.clone(), torch.zeros(d_sae), zeros, torch.zeros(0), config)
    dictionary.save(run / "dictionary", torch.randn(4, len(zeros), generator=generator))


class Turns:
    """Seconds of the index by stage, and of the bare pass, which has its turns while the index stands still."""

    def __init__(self, bare: Callable[[], None]) -> None:
        self.bare = bare
        self.bare_s: list[float] = []
        self.stages: dict[str, float] = {}
        self._away = self._last = 0.0  # seconds of all turns so far; when the last one ended

    def clock(self) -> float:
        """Seconds, but for those of the bare pass."""
        return time.perf_counter() - self._away

    def turn(self) -> None:
        """The bare pass, where it is its turn."""
        if time.perf_counter() - self._last < TURN_EVERY_S:
            return
        started = time.perf_counter()
        self.bare()
        self._last = time.perf_counter()
        self.bare_s.append(self._last - started)
        self._away += self._last - started

    def stage(self, owner: Any, name: str, label: str) -> None:
        """Have a function's time counted; one that gives an iterator takes it while that is run through."""
        work = getattr(owner, name)

        @wraps(work)
        def counted(*arguments: Any, **options: Any) -> Any:
            started = self.clock()
            result = work(*arguments, **options)
            result = iter(list(result)) if hasattr(result, "__next__") else result
            self.stages[label] = self.stages.get(label, 0.0) + self.clock() - started
            return result

        setattr(owner, name, counted)

    def between(self, owner: Any, name: str) -> None:
        """Have turns taken before a function's calls."""
        work = getattr(owner, name)

        @wraps(work)
        def later(*arguments: Any, **options: Any) -> Any:
            self.turn()
            return work(*arguments, **options)

        setattr(owner, name, later)


def beside_bare(config: IndexConfig, model: LanguageModel, path: Path) -> dict[str, Any]:
    """One whole index, and the bare pass in turns with it."""
    plain = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="sdpa").eval()
    assert config.corpus is not None
    packed = pack(config.corpus, model.tokenizer, TokenPolicy(context=CONTEXT), BATCH)  # pyright: ignore[reportArgumentType]
    ids = [rows.ids.long() for rows in islice(packed, 8)]
    for row_ids in ids[:2]:
        plain(row_ids, use_cache=False)  # warms up

    def bare() -> None:
        plain(ids[len(turns.bare_s) % len(ids)], use_cache=False)

    turns = Turns(bare)
    for name in ("activations_and_loss", "at_positions", "direct_logits"):
        turns.between(model, name)
    turns.stage(build, "collect", "text: model, encoder, spill")
    turns.stage(write.LatentTables, "write", "sweep over the latents")
    turns.stage(PairCounts, "write", "co-activation")
    turns.stage(write, "write_effects", "effects on the loss")
    turns.stage(write, "logits", "logit weights")
    turns.stage(write, "neighbours", "nearest latents")
    started = turns.clock()
    out = build.build_index(config, model)
    seconds = turns.clock() - started
    summary = json.loads((out / "index.json").read_text())
    bare_s = statistics.mean(turns.bare_s) / ids[0].numel() * summary["n_positions"]
    return {
        "index, s": round(seconds, 1),
        "bare pass over as many tokens, s": round(bare_s, 1),
        "index / bare pass": round(seconds / bare_s, 3),
        "of it": {name: round(spent / bare_s, 3) for name, spent in turns.stages.items()},
        "turns of the bare pass": len(turns.bare_s),
        "s of a turn, lowest, median, highest": [round(f(turns.bare_s), 3) for f in (min, statistics.median, max)],
        "positions": summary["n_positions"],
        "effects": summary["effects"],
    }


def divided(options: dict[str, str], ranks: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Seconds and processor seconds of the command, alone and shared, a thread a process; medians over rounds."""
    words = [word for key, value in options.items() if key != "run" for word in (f"--{key}", value)]
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks)]
    runs = {"one process": [], f"{ranks} ranks": torchrun}
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for turn in range(rounds):
        for name, launcher in runs.items():
            out = folder / f"{name} {turn}"
            command = [sys.executable, *launcher, "-m", "saelab", "index", options["run"], *words, "--out", str(out)]
            started, before = time.perf_counter(), os.times()
            subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=ROOT, stdout=sys.stderr)
            after = os.times()
            spent = after.children_user + after.children_system - before.children_user - before.children_system
            took[name].append((time.perf_counter() - started, spent))
    return {
        name: {
            "s": round(statistics.median(wall for wall, _ in of), 1),
            "processor s": round(statistics.median(spent for _, spent in of), 1),
        }
        for name, of in took.items()
    }


if __name__ == "__main__":
    main()
