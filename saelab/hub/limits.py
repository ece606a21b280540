"""What a user of a dictionary should know before trusting it, as far as its files tell."""

from __future__ import annotations

from collections.abc import Iterator

from saelab.evaluation.tables import off_budget
from saelab.hub.described import Described


def limits(described: Described) -> Iterator[str]:
    """A sentence each."""
    config, fidelity = described.config, described.fidelity
    yield f"It fits `{config.site}` of `{config.model}` only; the fingerprint of the model's weights is in config.json."
    first = config.policy.get("exclude_first")
    special = " and special tokens" if config.policy.get("exclude_special") else ""
    if first or special:
        yield f"Left out of training and of every number here: the first {first or 0} position(s) of each row{special}."
    if fidelity is None:
        yield "Nothing is known about what its reconstruction loses."
    else:
        yield from _found(described)
    if config.affinity.kind == "gradient":
        yield "Training chose latents with the gradient of the loss in sight; in use, as measured here, it does not."
    if described.record.has_index:
        yield f"The feature index in `{described.id}/features/` holds passages of the text that it was made from."
    yield "No number here says whether a latent means what it seems to mean."


def _found(described: Described) -> Iterator[str]:
    report = described.fidelity
    assert report is not None
    metrics, text = report.metrics, (report.about.corpus or {}).get("source", "given tokens")
    yield f"The numbers are of {report.about.tokens:,} tokens of {text}; on other text they differ."
    if metrics.dead:
        yield f"{metrics.dead:,} of {described.config.d_sae:,} latents never fired on those tokens."
    if warning := off_budget(report):
        yield f"{warning.removeprefix('warning: ')}."
    if report.leaking is not None:
        yield "The report's part named leaking saw the next token; it is no result."
