"""One run directory: taken up where it was left, fed batch by batch, and finished into a dictionary."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from saelab.activations.batch import ActivationBatch
from saelab.activations.source import Origin
from saelab.config import as_of_now, config_digest, differences, read_yaml, to_yaml
from saelab.dictionaries.calibration import active_per_token, calibrated
from saelab.dictionaries.config import BUDGET_TOLERANCE, FeatureChoice, MutualChoice
from saelab.dictionaries.dictionary import Dictionary
from saelab.disk import RunPaths, read_jsonl, write_text
from saelab.errors import UserError
from saelab.ranks.mesh import Mesh
from saelab.training import checkpoint
from saelab.training.config import TrainConfig
from saelab.training.finish import finished_dictionary
from saelab.training.log import MetricsLog
from saelab.training.profile import StageClock
from saelab.training.trainer import DivergedError, Trainer

SAMPLE_TOKENS = 65_536  # for the input scale and the geometric median
CHECK_BATCHES = 16  # fresh batches on which the inference rule is checked

Stage = Literal["waiting", "training", "checking", "finished", "diverged"]


class Run:
    """A training and its directory. It knows nothing of others that may share its pass.

    Where several ranks train it together, each has one of these and calls the same methods in the same order; the
    first of them writes.

    Args:
        mesh: the ranks that train it.

    Attributes:
        name: what people are told about it under; left out, its folder's.
        state: what a resumed run continues from; None for a new one.
        said: the last line of its metrics.
        trouble: why it diverged.
        clock: where its steps' time goes, where that is asked for.
    """

    def __init__(
        self, directory: Path, config: TrainConfig, name: str = "", profile: bool = False, mesh: Mesh | None = None
    ) -> None:
        self.config, self.paths, self.name = config, RunPaths(directory), name or directory.name
        self.mesh = mesh or Mesh()
        self.profile, self.clock = profile, None
        self.stage: Stage = "finished" if self.paths.dictionary.exists() else "waiting"
        self.state = None if self.stage == "finished" else checkpoint.latest_state(self.paths)
        if self.state is not None and self.state.config_digest != config_digest(config):
            raise UserError(f"{self.paths.checkpoints} belongs to other settings; use --overwrite to start anew")
        self.said: Mapping[str, Any] = next(reversed(read_jsonl(self.paths.metrics)), {})
        self.trouble: DivergedError | None = None
        # Thresholds are checked on the batches behind the last.
        self.checks = CHECK_BATCHES if isinstance(config.sae.allocation, MutualChoice | FeatureChoice) else 0

    @property
    def is_open(self) -> bool:
        """Whether it wants more batches."""
        return self.stage not in ("finished", "diverged")

    @property
    def done(self) -> int:
        """Steps on disk, before it has begun."""
        return self.state.step if self.state is not None else 0

    @property
    def last(self) -> int:
        """How many batches it takes, from the first of all on."""
        return self.config.steps + self.checks

    @property
    def sample_tokens(self) -> int:
        """Tokens whose activations a new run wants to see before it starts."""
        return min(SAMPLE_TOKENS, self.config.tokens) if self.state is None else 0

    def begin(
        self, origin: Origin, golden: ActivationBatch, sample: ActivationBatch | None, target_widths: tuple[int, ...]
    ) -> None:
        """Make the trainer: from a sample of activations, or from the last checkpoint.

        Args:
            golden: a few inputs whose codes are stored with the dictionary.
            sample: `sample_tokens` of its activations; None for a run that continues.
        """
        if sample is not None:
            self.trainer = Trainer.begin(self.config, sample, target_widths, self.mesh)
        else:
            assert self.state is not None  # it continues
            tensors = checkpoint.read(self.paths, self.state)
            self.trainer = Trainer.resume(self.config, tensors, self.state.step, golden.x.device, self.mesh)
        self.clock = StageClock(self.trainer) if self.profile else None
        if self.mesh.ranks.first:
            write_text(self.paths.config, to_yaml(self.config))  # only now: what can't be met leaves no run behind
            checkpoint.rewind_metrics(self.paths, self.done)
        self.origin, self.golden = origin, golden
        self.log = MetricsLog(self.paths)
        self.fresh: list[Float[Tensor, "B d"]] = []
        self.stage = "checking" if self.trainer.done == self.config.steps else "training"

    def wants(self, number: int) -> bool:
        """Whether the batch of this number is its next one."""
        return self.is_open and number == self.trainer.done + len(self.fresh)

    def take(self, batch: ActivationBatch) -> bool:
        """Train on the next batch, or keep it to check the finished weights on.

        Returns:
            Whether a checkpoint is due.
        """
        if self.trainer.done == self.config.steps:
            self.fresh.append(batch.x if self.mesh.ranks.first else batch.x.new_empty(0))  # the first rank checks
            return False
        try:
            self.log.add(self.trainer.step(batch))
            done, last = self.trainer.done, self.trainer.done == self.config.steps
            due = done % max(1, self.config.checkpoint_every // self.config.batch) == 0
            speaks = due or last or done % self.config.log_every == 0
            if speaks:
                self.trainer.check()
        except DivergedError as trouble:
            self.stage, self.trouble = "diverged", trouble
            return True
        if speaks:
            self.said = self.log.write(self.trainer) or self.said
        self.stage = "checking" if last else "training"
        # The first of several ranks reads the finished weights, which none of them holds, from the last checkpoint.
        return self.mesh.world.size > 1 if last else due

    @property
    def is_complete(self) -> bool:
        """Whether it has taken its last batch and only has to be finished."""
        return self.stage == "checking" and len(self.fresh) == self.checks

    def save(self, bookmarks: list[dict[str, Any]]) -> None:
        """Write a checkpoint."""
        self.state = checkpoint.State(self.trainer.done, config_digest(self.config), bookmarks)
        checkpoint.save(self.paths, self.state, self.trainer.pieces(), self.mesh.ranks)

    def finish(self) -> None:
        """Write the dictionary."""
        if self.mesh.ranks.first:
            trainer = self._whole() if self.mesh.world.size > 1 else self.trainer
            fresh = [x.to(trainer.weights.W_enc.device) for x in self.fresh]
            dictionary = keeping_its_budget(finished_dictionary(trainer, self.origin), fresh, self.name)
            dictionary.to("cpu").save(self.paths.dictionary, self.golden.x.cpu())
        self.mesh.ranks.gather("finished")
        self.stage = "finished"

    def _whole(self) -> Trainer:
        """The trainer as one process has it, after its last step."""
        assert self.state is not None  # it was saved after that step
        return Trainer.resume(self.config, checkpoint.read(self.paths, self.state), self.state.step)

    def let_go(self) -> None:
        """Free the memory of a run that is no longer open."""
        del self.trainer, self.fresh, self.golden


def discard(run: RunPaths) -> None:
    """Remove what training made of a run, so that it starts anew."""
    for path in (run.dictionary, run.checkpoints, run.evaluation, run.features):
        shutil.rmtree(path, ignore_errors=True)
    for path in (run.config, run.metrics):
        path.unlink(missing_ok=True)


def require_same_settings(run: RunPaths, config: TrainConfig) -> None:
    """Refuse to continue a run that was made with others."""
    if not run.config.exists():
        return
    changed = differences(as_of_now(TrainConfig, read_yaml(run.config)), config.model_dump(mode="json"))
    if changed:
        raise UserError(
            f"{run.root} was made with other settings ({'; '.join(changed[:3])}{'; …' if len(changed) > 3 else ''}); "
            "give another --out, or --overwrite to start anew"
        )


def keeping_its_budget(dictionary: Dictionary, fresh: list[Float[Tensor, "B d"]], name: str) -> Dictionary:
    """Check on tokens it was not trained on that the inference rule keeps about k latents, and calibrate it if not."""
    if not fresh:
        return dictionary
    k, active = dictionary.config.k, active_per_token(dictionary, fresh)
    if abs(active - k) <= BUDGET_TOLERANCE * k:
        return dictionary
    found = f"{name}: the running thresholds keep {active:.2f} latents per token instead of {k}"
    try:
        dictionary = calibrated(dictionary, fresh)
    except UserError as trouble:
        print(f"{found}; they stay, as {trouble}", file=sys.stderr)
        return dictionary
    print(f"{found}; calibrated on fresh tokens", file=sys.stderr)
    return dictionary
