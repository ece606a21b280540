"""Train the bundled demo model: tokenizer, GPT-2 of 4 layers × 256, fp16 Hugging Face folder with a measured card.

    python scripts/train_demo_model.py --text ../shared/data/text --tokens 18M

`--text` holds `tinystories.txt.gz` and `novels.txt.gz` (documents separated by <|endoftext|>). Stopped at any time, the
same command goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from demo_model import card, measure
from demo_model.batches import (
    IOI_WEIGHTS,
    Batches,
    Tokens,
    hold_out,
    microworld_rows,
    read_documents,
    tokenise,
    validation_rows,
)
from demo_model.tokenizer import train_tokenizer
from demo_model.training import Settings, Trainer
from tokenizers import Tokenizer
from transformers.utils.logging import disable_progress_bar

from saelab.corpora.microworld import Microworld
from saelab.errors import UserError

FILES = {"stories": "tinystories.txt.gz", "novels": "novels.txt.gz"}
ROWS = {"stories": 4, "novels": 2, "microworld": 4}  # of a batch of 10
SECONDS_BETWEEN_CHECKPOINTS = 180
VALIDATION_ROWS = 256  # of each source
PROMPTS = 2000  # for each IOI template


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--text", type=Path, default=Path("../shared/data/text"), help="folder of the two text files")
    parser.add_argument("--out", type=Path, default=Path("artifacts/demo-model"), help="the finished folder")
    parser.add_argument(
        "--work", type=Path, default=Path("artifacts/runs/demo-model-training"), help="checkpoint, tokenizer"
    )
    parser.add_argument("--preview", type=Path, help="also write the unfinished model here at every checkpoint")
    parser.add_argument("--tokens", type=_tokens, default=18_000_000, help="how many to train on, as 18M")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _tokens(text: str) -> int:
    factor = {"K": 1_000, "M": 1_000_000}.get(text[-1:].upper(), 1)
    return int(float(text[:-1] if factor > 1 else text) * factor)


def settings_for(tokens: int, seed: int) -> Settings:
    """The demo model's settings, with as many steps as that many tokens make."""
    return Settings(steps=tokens // (sum(ROWS.values()) * Settings.context), seed=seed)


def load_tokenizer(work: Path, sources: list[list[str]], vocabulary: int) -> Tokenizer:
    """The tokenizer kept in the working folder, or a new one."""
    path = work / "tokenizer.json"
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        train_tokenizer(sources, vocabulary).save(str(path))
    return Tokenizer.from_file(str(path))


def validation_set(tokenizer: Tokenizer, files: dict[str, Tokens], rows: int, width: int) -> dict[str, np.ndarray]:
    """Rows of `width` ids of the held-out documents of every source; the microworld's are of its test split."""
    made = microworld_rows(tokenizer, Microworld(seed=1, split="test"), 0, rows, width)
    return {
        **{source: validation_rows(tokens, rows, width) for source, tokens in files.items()},
        "microworld": np.stack([ids for ids, _ in made]).astype(np.int64),
    }


def pause(trainer: Trainer, tokenizer: Tokenizer, validation: dict[str, np.ndarray], preview: Path | None) -> None:
    """Measure, print, keep in the log, and write the preview."""
    model = trainer.model.eval()
    losses = measure.losses(model, {source: rows[::8] for source, rows in validation.items()})
    ioi = measure.ioi_by_template(model, tokenizer, "test", min(PROMPTS, 128))
    model.train()
    trainer.log.append({"step": trainer.step, "validation_loss": losses, "ioi_held_out_names": ioi})
    print(f"step {trainer.step}  validation {losses}")
    for template, scores in ioi.items():
        print(f"  IOI template {template} (held-out names): {scores}", flush=True)
    if preview:
        card.write_folder(model, tokenizer, preview)


def finish(trainer: Trainer, tokenizer: Tokenizer, validation: dict[str, np.ndarray], out: Path) -> None:
    """Write the folder, read it back, measure what was read, write the card."""
    card.write_folder(trainer.model, tokenizer, out)
    model, reread = card.read_folder(out)
    tokens = trainer.tokens_per_step * trainer.step
    facts = {
        "settings": {**asdict(trainer.settings), "betas": list(trainer.settings.betas)},
        "shares": {source: rows / sum(ROWS.values()) for source, rows in ROWS.items()},
        "rows_per_step": sum(ROWS.values()),
        "ioi_answer_weights": IOI_WEIGHTS,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens": tokens,
        "seconds": round(trainer.seconds),
        "tokens_per_second": round(tokens / trainer.seconds),
        "device": trainer.device.type,
        "threads": torch.get_num_threads(),
        "validation_loss": measure.losses(model, validation),
        "validation_tokens": {source: int(rows[:, 1:].size) for source, rows in validation.items()},
        "ioi_held_out_names": measure.ioi_by_template(model, reread, "test", PROMPTS),
        "ioi_training_names": measure.ioi_by_template(model, reread, "train", PROMPTS),
        "log": trainer.log,
    }
    card.write_card(out, facts, card.samples(model, reread))
    print(f"written to {out}: validation {facts['validation_loss']}")


def main() -> None:
    """Prepare the text, train, write."""
    options = arguments()
    disable_progress_bar()
    for name in FILES.values():
        if not (options.text / name).exists():
            raise UserError(f"--text: there is no {name} in {options.text}")
    parts = {source: hold_out(read_documents(options.text / name)) for source, name in FILES.items()}
    settings = settings_for(options.tokens, options.seed)
    tokenizer = load_tokenizer(options.work, [train for train, _ in parts.values()], settings.vocabulary)
    files = {source: tokenise(tokenizer, train) for source, (train, _) in parts.items()}
    held_out = {source: tokenise(tokenizer, held) for source, (_, held) in parts.items()}
    for source, tokens in files.items():
        print(f"{source}: {len(tokens.ids):,} tokens in {len(tokens.starts):,} documents")
    validation = validation_set(tokenizer, held_out, VALIDATION_ROWS, width=settings.context + 1)
    batches = Batches(tokenizer, files, ROWS, settings.context + 1, settings.seed)
    trainer = Trainer(settings, batches, options.work / "checkpoint.pt", options.device)
    if trainer.resume():
        print(f"going on from step {trainer.step}")
    trainer.run(SECONDS_BETWEEN_CHECKPOINTS, lambda t: pause(t, tokenizer, validation, options.preview))
    finish(trainer, tokenizer, validation, options.out)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
