"""A language model with a dictionary's latents turned up or down."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.corpora import TokenRows
from saelab.dictionaries.dictionary import Dictionary
from saelab.errors import UserError
from saelab.models import Intervention, LanguageModel, Site
from saelab.steering.edits import Change, Edits, add_vector, by_difference, by_direction, difference, direction
from saelab.training.origin import written_before_read, written_sites

Method = Literal["difference", "direction"]


def interventions(
    dictionary: Dictionary, edits: Edits, *, method: Method = "difference", units: Float[Tensor, "d_sae"] | None = None
) -> tuple[Intervention, ...]:
    """The edits as interventions where the dictionary reads and writes, at every position of the text.

    Args:
        edits: {latent: strength to add}, or a list of `LatentEdit`.
        method: "difference" edits codes and adds decode(edited) - decode(codes); "direction" adds the decoder
            direction whatever the codes are, and knows only mode add.
        units: largest activation of each latent, which strengths count; None: codes as they are.

    Raises:
        UserError: an unknown or repeated latent, a mode that the method does not have, or edits of a transcoder's codes
            that would come too late for what it writes.
    """
    if dictionary.config.targets:
        return _of_transcoder(dictionary, edits, method, units)
    change: Change = {"difference": by_difference, "direction": by_direction}[method](dictionary, edits, units)
    return (Intervention(Site.parse(dictionary.site), change, per_position=True),)


def _of_transcoder(
    dictionary: Dictionary, edits: Edits, method: Method, units: Float[Tensor, "d_sae"] | None
) -> tuple[Intervention, ...]:
    """Read codes at the input site, and add what their edits change at the targets."""
    sites, widths = written_sites(dictionary.config), [target.width for target in dictionary.config.targets]
    if method == "direction":
        parts = direction(dictionary, edits, units).split(widths)
        return tuple(Intervention(s, add_vector(part), per_position=True) for s, part in zip(sites, parts, strict=True))
    early = written_before_read(dictionary.config)
    if early is not None:
        raise UserError(
            f"the dictionary reads {dictionary.site} and writes {early}, which the model computes before it, so codes "
            "can't be edited on the way; use method direction"
        )
    change = difference(dictionary, edits, units)
    changed: list[Float[Tensor, "*batch width"]] = []  # in this forward pass, one for each target

    def read(x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        changed[:] = change(x).split(widths, dim=-1)
        return x

    def write(x: Float[Tensor, "*batch width"], place: int) -> Float[Tensor, "*batch width"]:
        return x + changed[place].to(x)

    reader = Intervention(Site.parse(dictionary.site), read, per_position=True)
    writers = (Intervention(s, partial(write, place=i), per_position=True) for i, s in enumerate(sites))
    return reader, *writers


@contextmanager
def steered(
    model: LanguageModel,
    dictionary: Dictionary,
    edits: Edits,
    *,
    method: Method = "difference",
    units: Float[Tensor, "d_sae"] | None = None,
) -> Iterator[LanguageModel]:
    """The model inside the `with` block runs under the edits: `with steered(model, sae, {123: +4.0}): model.loss(ids)`.

    Args and errors as in `interventions`.
    """
    with model.intervene(*interventions(dictionary.to(model.device), edits, method=method, units=units)):
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
) -> list[Continuation]:
    """Continue `prompt` once under each variant, all drawn with the same seed.

    Args:
        variants: (strength to show, edits); empty edits give the model as it is.
    """
    drawn = (sampling or Sampling())._asdict()
    texts: list[Continuation] = []
    for strength, edits in variants:
        with steered(model, dictionary, edits, method=method, units=units):
            ids = model.generate(prompt[None].to(model.device), **drawn)
        texts.append(Continuation(strength, ids[0, len(prompt) :].cpu()))
    return texts


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
