"""What a run leaves behind: the weights, the inference rule, and where it all comes from."""

from __future__ import annotations

import saelab
from saelab.activations.source import Origin
from saelab.dictionaries.config import DictionaryConfig, Target
from saelab.dictionaries.dictionary import Dictionary
from saelab.training.trainer import Trainer


def finished_dictionary(trainer: Trainer, origin: Origin) -> Dictionary:
    """The dictionary that a trainer holds after its last step; the trainer is one process alone."""
    assert trainer.mesh.world.size == 1  # of several ranks one resumes alone from the last checkpoint
    config, sae, weights, scaling = trainer.config, trainer.config.sae, trainer.weights, trainer.scaling
    inference = trainer.gate.inference(weights)
    b_enc = weights.b_enc
    if weights.input_centre is not None:  # W (x − c) + b  =  W x + (b − W c)
        b_enc = b_enc - weights.W_enc @ weights.input_centre
    sites = zip(origin.targets, scaling.widths, scaling.targets, strict=True)
    description = DictionaryConfig(
        architecture=sae.architecture, d_in=weights.W_enc.shape[1], d_sae=sae.d_sae, k=sae.k,
        affinity=sae.affinity, allocation=sae.allocation, rule="threshold" if inference.threshold.numel() else "topk",
        scale=scaling.input, site=origin.site,
        targets=tuple(Target(site=site, width=width, scale=scale) for site, width, scale in sites),
        model=origin.model, model_fingerprint=origin.model_fingerprint,
        tokenizer_fingerprint=origin.tokenizer_fingerprint, policy=origin.policy.model_dump(mode="json"),
        tokens_trained=trainer.done * config.batch, saelab_version=saelab.__version__,
    )  # fmt: skip
    return Dictionary(
        weights.W_enc, weights.W_dec, b_enc, weights.b_dec, inference.threshold.float(), description,
        inference.gain, inference.shift,
    )  # fmt: skip
