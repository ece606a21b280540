"""A language model with a dictionary's latents turned up or down."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.corpora import TokenRows
from saelab.dictionaries.dictionary import Dictionary
from saelab.errors import UserError
from saelab.models import Intervention, LanguageModel, Positions, Site
from saelab.steering.config import Method
from saelab.steering.edits import Change, Edits, add_vector, difference, differences, direction
from saelab.training.origin import written_before_read, written_sites


def interventions(
    dictionary: Dictionary,
    edits: Edits,
    *,
    method: Method = "difference",
    units: Float[Tensor, "d_sae"] | None = None,
    positions: str = "all",
) -> tuple[Intervention, ...]:
    """The edits as interventions where the dictionary reads and writes.

    Args:
        edits: {latent: strength to add}, or a list of `LatentEdit`.
        method: "difference" edits codes and adds decode(edited) - decode(codes); "direction" adds the decoder
            direction whatever the codes are, and knows only mode add.
        units: largest activation of each latent, which strengths count; None: codes as they are.
        positions: where in each row: "all"; "5:" from 5 on; "5" that one; "-1:" from the prompt's last token on, all
            generated ones included (the last token of a row that is not generated from). They count from 0.

    Raises:
        UserError: an unknown or repeated latent, a mode that the method does not have, positions that can't be read, or
            edits of a transcoder's codes that would come too late for what it writes.
    """
    if method == "direction":
        return _placed(dictionary, direction(dictionary, edits, units), positions)
    return _placed(dictionary, difference(dictionary, edits, units), positions)


def together(
    dictionary: Dictionary,
    variants: Sequence[Edits],
    *,
    method: Method = "difference",
    units: Float[Tensor, "d_sae"] | None = None,
    positions: str = "all",
) -> tuple[Intervention, ...]:
    """`interventions` for a batch of copies of one text: row n under the n-th of the variants."""
    if method == "direction":
        added = torch.stack([direction(dictionary, edits, units) for edits in variants])
        return _placed(dictionary, added[:, None], positions)
    return _placed(dictionary, differences(dictionary, variants, units), positions)


def _placed(dictionary: Dictionary, added: Tensor | Change, positions: str) -> tuple[Intervention, ...]:
    """Add where the dictionary writes: a constant, or what is made of the activation that it reads."""
    there = Positions.parse(positions)
    sites, widths = written_sites(dictionary.config), [target.width for target in dictionary.config.targets]
    if isinstance(added, Tensor):
        parts = added.split(widths, dim=-1) if widths else (added,)
        changes: list[tuple[Site, Change]] = [(s, add_vector(part)) for s, part in zip(sites, parts, strict=True)]
    elif widths:
        changes = _read_and_written(dictionary, added, sites, widths)
    else:
        changes = [(sites[0], lambda x: x + added(x))]
    return tuple(Intervention(site, change, per_position=True, positions=there) for site, change in changes)


def _read_and_written(
    dictionary: Dictionary, added: Change, sites: Sequence[Site], widths: list[int]
) -> list[tuple[Site, Change]]:
    """Of a transcoder: read at its input, and add what comes of it at the targets."""
    early = written_before_read(dictionary.config)
    if early is not None:
        raise UserError(
            f"the dictionary reads {dictionary.site} and writes {early}, which the model computes before it, so codes "
            "can't be edited on the way; use method direction"
        )
    changed: list[Float[Tensor, "*batch width"]] = []  # in this forward pass, one for each target

    def read(x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        changed[:] = added(x).split(widths, dim=-1)
        return x

    def write(x: Float[Tensor, "*batch width"], place: int) -> Float[Tensor, "*batch width"]:
        return x + changed[place].to(x)

    return [(Site.parse(dictionary.site), read), *((s, partial(write, place=n)) for n, s in enumerate(sites))]


@contextmanager
def steered(
    model: LanguageModel,
    dictionary: Dictionary,
    edits: Edits,
    *,
    method: Method = "difference",
    units: Float[Tensor, "d_sae"] | None = None,
    positions: str = "all",
) -> Iterator[LanguageModel]:
    """The model inside the `with` block runs under the edits: `with steered(model, sae, {123: +4.0}): model.loss(ids)`.

    Args and errors as in `interventions`.
    """
    there = interventions(dictionary.to(model.device), edits, method=method, units=units, positions=positions)
    with model.intervene(*there):
        yield model


class Continuation(NamedTuple):
    """What the model writes after a prompt."""

    strength: float | None
    """Strength of the edits; None: the model as it is."""
    ids: Int[Tensor, "new"]
    """Ids of the new tokens."""


class Sampling(NamedTuple):
    """How tokens are drawn; the same seed for every strength, so that texts part only where the edit parts them."""

    max_new_tokens: int = 40
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0


def side_by_side(
    model: LanguageModel,
    dictionary: Dictionary,
    prompt: Int[Tensor, "position"],
    variants: Sequence[tuple[float | None, Edits]],
    *,
    sampling: Sampling | None = None,
    method: Method = "difference",
    units: Float[Tensor, "d_sae"] | None = None,
    positions: str = "all",
) -> list[Continuation]:
    """Continue `prompt` once under each variant, all drawn with the same seed.

    Args:
        variants: (strength to show, edits); empty edits give the model as it is.
        positions: as in `interventions`.
    """
    given = {"sampling": sampling, "method": method, "units": units, "positions": positions}
    return [
        Continuation(strength, torch.tensor(list(continuing(model, dictionary, prompt, edits, **given))))
        for strength, edits in variants
    ]


def continuing(
    model: LanguageModel,
    dictionary: Dictionary,
    prompt: Int[Tensor, "position"],
    edits: Edits,
    *,
    sampling: Sampling | None = None,
    method: Method = "difference",
    units: Float[Tensor, "d_sae"] | None = None,
    positions: str = "all",
) -> Iterator[int]:
    """The new tokens under the edits, one by one as they are drawn; args as in `side_by_side`, checked at once.

    Between two tokens the model is as it was: the edits are in force only while one is computed.
    """
    there = interventions(dictionary.to(model.device), edits, method=method, units=units, positions=positions)
    tokens = model.stream(prompt[None].to(model.device), **(sampling or Sampling())._asdict())

    def drawn() -> Iterator[int]:
        while True:
            with model.intervene(*there):
                token = next(tokens, None)
            if token is None:
                return
            yield int(token[0])

    return drawn()


@torch.no_grad()
def largest_activations(
    model: LanguageModel, dictionary: Dictionary, rows: Iterable[TokenRows]
) -> Float[Tensor, "d_sae"]:
    """Largest code of each latent over the kept tokens of `rows`, fp32; 0 for a latent that never fires there."""
    site = Site.parse(dictionary.site)
    largest = torch.zeros(dictionary.d_sae, device=model.device)
    dictionary = dictionary.to(model.device)
    for chunk in rows:
        x = model.activations(chunk.ids.to(model.device, torch.int64), [site])[site]
        codes = dictionary.encode(x[chunk.keep.to(model.device)].float())
        largest.scatter_reduce_(0, codes.latents, codes.values.float(), "amax")
    return largest.cpu()
