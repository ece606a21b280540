"""Substitutions in one forward pass: each dictionary encodes what the substitutions before it have left."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from jaxtyping import Float, Int
from torch import Tensor

from saelab.errors import UserError
from saelab.evaluation.batch import CleanBatch, Subject
from saelab.models import Intervention, Site
from saelab.models.taps import Edit

Rows = Float[Tensor, "rows context width"]


class Chain:
    """All `subjects` in the place of what they reconstruct, on one batch.

    Attributes:
        fired: latents that fire on each kept token, for each subject, after `logits`.
    """

    def __init__(self, batch: CleanBatch, subjects: Sequence[Subject]) -> None:
        self._batch, self._subjects = batch, subjects
        self.fired: dict[Subject, Int[Tensor, "tokens"]] = {}

    def logits(self) -> Float[Tensor, "rows context d_vocab"]:
        """Next-token logits with every reconstruction in its place."""
        writing: list[Intervention] = []
        reading: list[Intervention] = []
        for subject in self._subjects:
            if not subject.dictionary.config.targets:
                writing.append(Intervention(subject.site, self._in_place(subject)))
                continue
            read, writers = self._across(subject)
            reading.append(Intervention(subject.site, read))
            writing += [Intervention(site, write) for site, write in zip(subject.writes, writers, strict=True)]
        # At one site edits compose in this order: a transcoder reads what has been written there.
        with self._batch.model.intervene(*writing, *reading):
            return self._batch.model.logits(self._batch.ids)

    def _in_place(self, subject: Subject) -> Edit:
        return lambda x: self._written(x, self._reconstruction(subject, x))

    def _across(self, subject: Subject) -> tuple[Edit, list[Edit]]:
        """For a transcoder: what reads its input, and what writes its reconstruction at each target."""
        made: list[Float[Tensor, "tokens width"]] = []
        widths = [self._batch.model.width(site) for site in subject.writes]

        def read(x: Rows) -> Rows:
            made.extend(self._reconstruction(subject, x).split(widths, dim=-1))
            return x

        def writer(place: int) -> Edit:
            return lambda x: self._written(x, made[place])

        return read, [writer(place) for place in range(len(widths))]

    def _reconstruction(self, subject: Subject, x: Rows) -> Float[Tensor, "tokens d_out"]:
        codes = subject.dictionary.encode(x[self._batch.keep].float())
        self.fired[subject] = codes.positive().counts
        return subject.dictionary.decode(codes)

    def _written(self, x: Rows, value: Float[Tensor, "tokens width"]) -> Rows:
        x = x.clone()
        x[self._batch.keep] = value.to(x)
        return x


def check_apart(subjects: Sequence[Subject]) -> None:
    """No two substitutions may fall on the same numbers.

    Raises:
        UserError: two dictionaries write at one site, or one at a head of a site that the other writes whole.
    """
    for one, other in combinations(subjects, 2):
        shared = next(((a, b) for a in one.writes for b in other.writes if _overlap(a, b)), None)
        if shared is not None:
            where = str(shared[0]) if shared[0] == shared[1] else f"{shared[0]} and {shared[1]}"
            raise UserError(f"{one.name} and {other.name} can't be substituted together: both write at {where}")


def _overlap(a: Site, b: Site) -> bool:
    return (a.layer, a.kind) == (b.layer, b.kind) and (a.head == b.head or None in (a.head, b.head))
