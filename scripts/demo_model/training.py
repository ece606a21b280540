"""The training loop: AdamW, warm-up and cosine, bf16 autocast, checkpoints from which it goes on exactly."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from demo_model.batches import Batches
from saelab.errors import UserError


@dataclass(frozen=True)
class Settings:
    """Everything that the weights depend on, besides the text."""

    steps: int
    layers: int = 4
    width: int = 256
    heads: int = 8
    context: int = 256
    vocabulary: int = 4096
    learning_rate: float = 1e-3
    final_rate: float = 0.1  # of the learning rate
    warmup: int = 100  # steps
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    seed: int = 0


def build_model(settings: Settings) -> GPT2LMHeadModel:
    """A GPT-2 with tied embeddings, no dropout and GPT-2's initialisation (std 0.02, residual projections scaled)."""
    torch.manual_seed(settings.seed)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=settings.vocabulary,
            n_positions=settings.context,
            n_embd=settings.width,
            n_layer=settings.layers,
            n_head=settings.heads,
            activation_function="gelu_pytorch_tanh",  # the same function as GPT-2's "gelu_new", in one kernel
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
            use_cache=False,
        )
    )


def learning_rate(settings: Settings, step: int) -> float:
    """Linear warm-up, then a cosine down to `final_rate` of the peak at the last step."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    progress = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    share = settings.final_rate + (1 - settings.final_rate) * 0.5 * (1 + math.cos(math.pi * progress))
    return settings.learning_rate * share


class Trainer:
    """Model, optimizer and step; `run` trains to the end, `save` and `resume` keep the state in one file."""

    def __init__(self, settings: Settings, batches: Batches, checkpoint: Path, device: str = "cpu") -> None:
        self.settings, self.batches, self.checkpoint, self.device = settings, batches, checkpoint, torch.device(device)
        self.model = build_model(settings)
        nn.Module.to(self.model, self.device)
        matrices = [p for p in self.model.parameters() if p.dim() >= 2]
        others = [p for p in self.model.parameters() if p.dim() < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=settings.learning_rate,
            betas=settings.betas,
            fused=True,
        )
        self.step = 0
        self.seconds = 0.0  # of training so far, over all sittings
        self.log: list[dict] = []

    def run(self, every_seconds: float, on_pause: Callable[[Trainer], None], until: int | None = None) -> None:
        """Train to the last step (or `until`). At the end and every `every_seconds` call `on_pause`, then save."""
        stop = min(self.settings.steps, until or self.settings.steps)
        paused = time.monotonic()
        while self.step < stop:
            began = time.monotonic()
            loss = self._train_step()
            self.step += 1
            now = time.monotonic()
            self.seconds += now - began
            self._report(loss, now - began)
            if now - paused > every_seconds or self.step == stop:
                on_pause(self)
                self.save()
                paused = time.monotonic()

    def _train_step(self) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.settings, self.step)
        rows, weights = (torch.from_numpy(array).to(self.device) for array in self.batches.batch(self.step))
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            logits = self.model(rows[:, :-1]).logits
        losses = F.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten(), reduction="none")
        loss = losses @ weights[:, 1:].flatten() / weights[:, 1:].sum()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()

    def _report(self, loss: float, seconds: float) -> None:
        if self.step % 50 and self.step != self.settings.steps:
            return
        speed = self.tokens_per_step * self.step / self.seconds
        left = (self.settings.steps - self.step) * self.seconds / self.step
        print(
            f"step {self.step}/{self.settings.steps}  loss {loss:.3f}  {speed:,.0f} tokens/s "
            f"(now {self.tokens_per_step / seconds:,.0f})  ETA {left / 60:.0f} min",
            flush=True,
        )

    @property
    def tokens_per_step(self) -> int:
        """Predicted tokens in one batch."""
        return sum(self.batches.rows.values()) * (self.batches.width - 1)

    def save(self) -> None:
        """Write the state to the checkpoint file, all or nothing."""
        state = {
            "settings": {**asdict(self.settings), "betas": list(self.settings.betas)},
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "log": self.log,
        }
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self.checkpoint)

    def resume(self) -> bool:
        """Go on from the checkpoint file, if there is one. Raises UserError if it was made with other settings.

        The number of steps may differ: the learning rate then follows the new cosine from here on.
        """
        if not self.checkpoint.exists():
            return False
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        mine = {**asdict(self.settings), "betas": list(self.settings.betas)}
        for key, theirs in state["settings"].items():
            if key != "steps" and mine[key] != theirs:
                raise UserError(
                    f"{self.checkpoint} was trained with {key} = {theirs}, not {mine[key]}; delete it or use that"
                )
        if state["settings"]["steps"] != self.settings.steps:
            self.log.append({"step": state["step"], "steps": [state["settings"]["steps"], self.settings.steps]})
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.log = state["step"], state["seconds"], state["log"] + self.log
        return True
