"""What latents add to the next token's logits by the direct path: from where they are written straight to the end.

Effect of latent i on token t = f_i · s · (direction_i · u_t): its decoder direction as it enters the residual stream,
the final norm with its scale s held still at what it was on the clean text, and the unembedding of t, less the mean
over the vocabulary, which changes no probability. Nothing that later layers make of the latent is in it.
(Direct logit attribution as in the logit lens and arXiv 2211.00593, section 3; leaving out the mean is our choice.)
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.dictionaries.dictionary import Dictionary
from saelab.errors import UserError
from saelab.models import Intervention, LanguageModel, Site
from saelab.models.site import HEAD_KINDS
from saelab.training.origin import written_sites

_BENT = 0.05  # how far from linear, in relative terms, rounding in half precision may make a linear map look


def obstacle(dictionary: Dictionary) -> str | None:
    """Why the dictionary has no direct path to the logits, in a sentence; None if it has one."""
    inner = [site for site in written_sites(dictionary.config) if site.kind in ("q", "k", "v")]
    if not inner:
        return None
    return f"{inner[0]} only steers where its layer attends; nothing of it goes straight to the logits."


@torch.no_grad()
def direct_effects(
    model: LanguageModel,
    dictionary: Dictionary,
    latents: Int[Tensor, "n"],
    values: Float[Tensor, "n"],
    scale: float,
    token: int,
) -> Float[Tensor, "n"]:
    """What each latent adds to the logit of `token` above the mean logit, in logits.

    Args:
        values: activations of `latents` at one position.
        scale: `LanguageModel.final_scale` at that position.

    Raises:
        UserError: the dictionary writes where there is no direct path (see `obstacle`), or to heads whose output the
            model norms before it enters the stream.
    """
    if (why := obstacle(dictionary)) is not None:
        raise UserError(why)
    directions = residual_directions(model, dictionary, latents)
    (toward,) = model.logit_directions(torch.tensor([token]))
    return (values.to(directions) * scale * (directions @ toward)).cpu()


@torch.no_grad()
def residual_directions(
    model: LanguageModel, dictionary: Dictionary, latents: Int[Tensor, "n"]
) -> Float[Tensor, "n d_model"]:
    """What one unit of each latent's code adds to the residual stream, over all sites that the dictionary writes."""
    sites = written_sites(dictionary.config)
    rows = dictionary.decoder_directions(latents).to(model.device).float()
    parts = rows.split([model.width(site) for site in sites], dim=-1)
    written = [
        _through_heads(model, site, part) if site.kind in HEAD_KINDS else part
        for site, part in zip(sites, parts, strict=True)
    ]
    return torch.stack(written).sum(0)


def _through_heads(
    model: LanguageModel, site: Site, directions: Float[Tensor, "n width"]
) -> Float[Tensor, "n d_model"]:
    """Directions in the heads' outputs z, taken through W_O.

    Found by running rows of one token with z set to 0, to each direction and to twice each direction: so it needs no
    architecture's names, and a model that norms the sum (Gemma 2) is noticed.
    """
    n = len(directions)
    z = torch.cat([directions.new_zeros(1, directions.shape[1]), directions, 2 * directions])[:, None]
    out = Site(site.layer, "attn_out")
    with model.intervene(Intervention(site, lambda x: z.to(x))):
        came_out = model.activations(torch.zeros(len(z), 1, dtype=torch.int64), [out])[out][:, 0].float()
    once, twice = came_out[1 : n + 1] - came_out[0], came_out[n + 1 :] - came_out[0]
    if (twice - 2 * once).norm() > _BENT * twice.norm():
        raise UserError(f"model {model.name!r} norms what the heads of {site} write, so it has no linear direct path")
    return once
