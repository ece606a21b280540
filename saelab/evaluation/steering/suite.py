"""The steering suite: how far latents move the model, how well, and whether they move what they are named after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.errors import UserError
from saelab.evaluation.batch import CleanBatch, Subject
from saelab.evaluation.found import Found, codes_of, of_codes
from saelab.evaluation.numbers import Intervals
from saelab.evaluation.provenance import Provenance
from saelab.evaluation.steering import directions, targets
from saelab.evaluation.steering.directions import Arm
from saelab.evaluation.steering.headline import headline
from saelab.evaluation.steering.material import learnt
from saelab.evaluation.steering.outcomes import gains_at_harm, judged
from saelab.evaluation.steering.reaction import Pushes
from saelab.evaluation.steering.reactions import Reactions
from saelab.evaluation.steering.report import Outcome, SteeringMetrics, SteeringReport, Target, TargetMeans
from saelab.evaluation.steering.shared import Baselines, Shared, first, run
from saelab.evaluation.steering.spread import Weighing
from saelab.kernels.codes import SparseCodes, concatenate
from saelab.steering.effect import live_latents


class Steering:
    """Codes of one dictionary on the text; the steering itself comes after the pass, in `report`."""

    needs_output: ClassVar = False
    everywhere: ClassVar = True

    def __init__(self, subject: Subject, baselines: Baselines, resamples: int, seed: int) -> None:
        self.subject, self.baselines = subject, baselines
        self.text, self.resamples, self.seed = baselines.text, resamples, seed
        self._units: Float[Tensor, "d_sae"] = torch.zeros(subject.dictionary.d_sae)
        self._codes: list[SparseCodes] = []

    def measure(self, batch: CleanBatch) -> dict[str, Tensor]:
        """What fires on one batch, and which of its tokens are learnt from."""
        return {**of_codes(batch.encoded(self.subject).codes.positive()), "fit": learnt(batch)[batch.keep.cpu()]}

    def take(self, found: Found) -> None:
        """Keep what `measure` made of the next batch."""
        codes = codes_of(found, self.subject.dictionary.d_sae)
        self._units.scatter_reduce_(0, codes.latents, codes.values.float(), "amax")
        self._codes.append(codes.rows_where(found["fit"]))

    def report(self, about: Provenance) -> SteeringReport:
        """Steer, and hold it against the baselines of the site.

        Raises:
            UserError: no latent fires, the text has too few places to steer at, or a label can't be judged.
        """
        text, live = self.text, int((self._units > 0).sum())
        if not live:
            raise UserError(f"no latent of {self.subject.name} fired on the text, so none can be steered; read more")
        latents = live_latents(self._units, text.config.latents or live, self.seed)
        beside = self.baselines.at(self.subject.writes)
        weighing = Weighing.of([place.document for place in text.places], self.resamples, self.seed)
        arms, by_label, ways = self._steer(latents, beside, weighing)
        outcomes = self._outcomes(arms, latents, beside, weighing)
        numbers = headline(outcomes, gains_at_harm(arms, weighing), ways or [])
        counts = {
            "sampled": len(latents),
            "live": live,
            "contexts": len(text.places),
            "length": first(beside.lengths),
            "labels": None if by_label is None else len(by_label),
        }
        steering = text.config.model_dump(mode="json")
        return SteeringReport(
            about=about.model_copy(update={"settings": {**about.settings, "steering": steering}}),
            metrics=SteeringMetrics.model_validate(counts | {name: value for name, (value, _) in numbers.items()}),
            intervals=Intervals(resamples=self.resamples, of={name: i for name, (_, i) in numbers.items()}),
            outcomes=outcomes,
            target_means=ways,
            targets=by_label,
        )

    def _steer(
        self, latents: Int[Tensor, "n"], beside: Shared, weighing: Weighing
    ) -> tuple[list[tuple[Arm, Reactions]], list[Target] | None, list[TargetMeans] | None]:
        text, dictionary, stage = self.text, self.subject.dictionary, beside.stage
        model = stage.model
        strengths, lengths = text.config.strengths, beside.lengths
        arms = directions.of_latents(dictionary, latents, self._units, beside.random, strengths, lengths)
        parts = [Pushes.of(model, stage.sites, arm.vectors) for arm in arms]
        chosen = targets.choose(concatenate(self._codes), text) if text.targets else None
        if chosen is not None:
            parts.append(targets.of_latents(model, stage.sites, dictionary, chosen, first(lengths)))
        found = run(stage, parts, f"steer {self.subject.name}")
        done = [*zip(arms, found, strict=False), *beside.arms]
        if chosen is None:
            return done, None, None
        ways = targets.ways(found[-1], targets.OF_LATENTS) | beside.ways
        return done, targets.targets(text, ways, chosen, beside.clean, weighing), targets.means(ways, weighing)

    def _outcomes(
        self, arms: Sequence[tuple[Arm, Reactions]], latents: Int[Tensor, "n"], beside: Shared, weighing: Weighing
    ) -> list[Outcome]:
        """All arms added as directions, and the latents' own strengths by difference too."""
        dictionary, outcomes = self.subject.dictionary, []
        for arm, found in arms:
            outcomes.append(judged(arm, "direction", found, weighing))
            if (arm.directions, arm.matched) == ("latents", "own"):
                clamped = beside.stage.clamped(arm, found, dictionary, latents, self._units)
                outcomes.append(judged(arm, "difference", clamped, weighing))
        return outcomes
