"""`saelab train`: from settings to a finished run directory; the same call again continues an unfinished one."""

from __future__ import annotations

import shutil
import sys
from itertools import islice
from pathlib import Path

import torch

import saelab
from saelab.activations.source import ActivationSource
from saelab.config import config_digest, differences, read_yaml, to_yaml
from saelab.dictionaries.calibration import TOLERANCE, active_per_token, calibrated
from saelab.dictionaries.config import DictionaryConfig, FeatureChoice, MutualChoice
from saelab.dictionaries.dictionary import Dictionary
from saelab.disk import RunPaths, exclusive, require_free_space, write_text
from saelab.errors import UserError
from saelab.progress import track
from saelab.training import checkpoint
from saelab.training.config import TrainConfig
from saelab.training.initial import initial_weights, input_scale
from saelab.training.log import MetricsLog
from saelab.training.plan import bytes_on_disk, open_for
from saelab.training.trainer import DivergedError, Trainer

SAMPLE_TOKENS = 65_536  # for the input scale and the geometric median
GOLDEN_TOKENS = 16
CHECK_BATCHES = 16  # fresh batches on which the inference rule is checked


def train(config: TrainConfig, out: Path, overwrite: bool = False) -> Path:
    """Train one dictionary into the run directory `out` and return it.

    A finished run with the same settings is left alone; an unfinished one continues from its last checkpoint and ends
    with the weights an uninterrupted run would have (bit for bit on the CPU); other settings are refused.

    Raises:
        UserError: settings that can't be met, a run made with other settings, or a loss that is not a number.
    """
    run = RunPaths(out)
    with exclusive(run.lock):
        if overwrite:
            discard(run)
        _require_same_settings(run, config)
        if run.dictionary.exists():
            return out
        source = open_for(config)
        require_free_space(out, bytes_on_disk(config, source.d_in), f"the run {out}")
        write_text(run.config, to_yaml(config))  # only now: settings that can't be met leave no run behind
        trainer = _begin_or_resume(config, run, source)
        _loop(config, run, source, trainer)
        dictionary = keeping_its_budget(finished_dictionary(trainer, source), config, source)
        dictionary.to("cpu").save(run.dictionary, source.sample(GOLDEN_TOKENS).cpu())
    return out


def discard(run: RunPaths) -> None:
    """Remove what training made of a run, so that it starts anew."""
    for path in (run.dictionary, run.checkpoints, run.evaluation, run.features):
        shutil.rmtree(path, ignore_errors=True)
    for path in (run.config, run.metrics):
        path.unlink(missing_ok=True)


def _require_same_settings(run: RunPaths, config: TrainConfig) -> None:
    if not run.config.exists():
        return
    changed = differences(read_yaml(run.config), config.model_dump(mode="json"))
    if changed:
        raise UserError(
            f"{run.root} was made with other settings ({'; '.join(changed[:3])}{'; …' if len(changed) > 3 else ''}); "
            "give another --out, or --overwrite to start anew"
        )


def _begin_or_resume(config: TrainConfig, run: RunPaths, source: ActivationSource) -> Trainer:
    saved = checkpoint.latest(run)
    if saved is None:
        sample = source.sample(min(SAMPLE_TOKENS, config.tokens))
        scale = input_scale(sample)
        trainer = Trainer(config, initial_weights(sample * scale, config.sae.d_sae, config.seed), scale)
        checkpoint.rewind_metrics(run, 0)
        return trainer
    if saved.config_digest != config_digest(config):
        raise UserError(f"{run.checkpoints} belongs to other settings than {run.config}; use --overwrite to start anew")
    blank = torch.zeros(config.sae.d_sae, source.d_in, device=source.device)
    trainer = Trainer(config, initial_weights(blank[:1], config.sae.d_sae, config.seed), saved.scale)
    trainer.restore(saved.tensors, saved.step)
    checkpoint.rewind_metrics(run, saved.step)
    return trainer


def _loop(config: TrainConfig, run: RunPaths, source: ActivationSource, trainer: Trainer) -> None:
    every = max(1, config.checkpoint_every // config.batch)
    log = MetricsLog(run)
    with track(config.steps * config.batch, "train", done=trainer.done * config.batch) as bar:
        batches = source.batches(config.batch, config.seed, start=trainer.done)
        while trainer.done < config.steps:
            try:
                log.add(trainer.step(next(batches)))
            except DivergedError:
                _save(config, run, trainer)
                raise
            at_checkpoint = trainer.done % every == 0
            note = log.write(trainer) if at_checkpoint or trainer.done % config.log_every == 0 else ""
            bar.advance(config.batch, note)
            if at_checkpoint and trainer.done < config.steps:
                _save(config, run, trainer)
        log.write(trainer)


def _save(config: TrainConfig, run: RunPaths, trainer: Trainer) -> None:
    checkpoint.save(
        run, checkpoint.Checkpoint(trainer.done, trainer.scale, config_digest(config), trainer.state())
    )  # fmt: skip


def finished_dictionary(trainer: Trainer, source: ActivationSource) -> Dictionary:
    """What the run leaves behind: the weights, the inference rule, and where it all comes from."""
    config, sae = trainer.config, trainer.config.sae
    threshold = torch.empty(0)
    if isinstance(sae.allocation, FeatureChoice):
        threshold = trainer.statistics.latent_thresholds()
    elif isinstance(sae.allocation, MutualChoice):
        threshold = torch.full((sae.d_sae,), trainer.statistics.global_threshold())
    origin = source.origin
    description = DictionaryConfig(
        architecture=sae.architecture, d_in=source.d_in, d_sae=sae.d_sae, k=sae.k,
        affinity=sae.affinity, allocation=sae.allocation, rule="threshold" if threshold.numel() else "topk",
        scale=trainer.scale, site=origin.site, model=origin.model, model_fingerprint=origin.model_fingerprint,
        tokenizer_fingerprint=origin.tokenizer_fingerprint, policy=origin.policy.model_dump(mode="json"),
        tokens_trained=trainer.done * config.batch, saelab_version=saelab.__version__,
    )  # fmt: skip
    return Dictionary(**trainer.weights.named(), threshold=threshold.float(), config=description)


def keeping_its_budget(dictionary: Dictionary, config: TrainConfig, source: ActivationSource) -> Dictionary:
    """Check on tokens it was not trained on that the inference rule keeps about k latents, and calibrate it if not."""
    if dictionary.config.rule != "threshold":
        return dictionary
    fresh = islice(source.batches(config.batch, config.seed, start=config.steps), CHECK_BATCHES)
    x = [batch.x for batch in fresh]
    active = active_per_token(dictionary, x)
    if abs(active - config.sae.k) <= TOLERANCE * config.sae.k:
        return dictionary
    print(f"train: the running thresholds keep {active:.2f} latents per token instead of {config.sae.k}; "
          "calibrated on fresh tokens", file=sys.stderr)  # fmt: skip
    return calibrated(dictionary, x)
