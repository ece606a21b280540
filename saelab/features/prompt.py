"""What a dictionary sees in one text: every token's latents, how well they rebuild it, what that costs the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from saelab.activations.forward import tokenizer_of, without_sinks
from saelab.config import build
from saelab.corpora import Cursor, TokenPolicy, TokenRows, special_ids
from saelab.corpora.packing import excluded_as_text
from saelab.corpora.rows import NO_OFFSET
from saelab.dictionaries.dictionary import Dictionary
from saelab.errors import UserError
from saelab.kernels.codes import SparseCodes
from saelab.models import Intervention, LanguageModel, Site
from saelab.models.taps import Edit
from saelab.training.origin import written_sites

PREDICTED = 12  # likeliest next tokens kept for each position


class Prediction(NamedTuple):
    """What the model takes to come next, at every position."""

    loss: Float[Tensor, "position"]
    """Cross-entropy of the token that does come next, nats; NaN at the last position."""
    probability: Float[Tensor, "position PREDICTED"]
    """Of the tokens that are likeliest without the dictionary."""


@dataclass(frozen=True, eq=False)
class PromptReading:
    """One text as a dictionary reads it. Everything lies on the CPU.

    Positions that the dictionary's token policy leaves out (the first, special tokens, attention sinks) have no codes
    and no error, and keep their own activation where the reconstruction replaces the others'.
    """

    ids: Int[Tensor, "position"]
    excluded: UInt8[Tensor, "position"]
    """0, or the `Reason` why the position takes no part."""
    codes: SparseCodes
    """A row for each position."""
    error: Float[Tensor, "position"]
    """|x - x_hat|² / |x|² where the dictionary writes; NaN at positions left out."""
    likeliest: Int[Tensor, "position PREDICTED"]
    """Ids of the next tokens that the model itself finds likeliest, the likeliest first."""
    clean: Prediction
    rebuilt: Prediction
    """With the reconstruction in the place of the activation at all kept positions at once."""
    final_scale: Float[Tensor, "position"]
    """The final norm's scale on the clean text, which direct effects hold still."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def kept(self) -> Bool[Tensor, "position"]:
        return self.excluded == 0

    @property
    def scored(self) -> Bool[Tensor, "position"]:
        """Positions whose prediction counts: kept, with a next token in the text."""
        return self.kept & ~self.clean.loss.isnan()

    def at(self, position: int) -> tuple[Int[Tensor, "active"], Float[Tensor, "active"]]:
        """Latents that fire at a position, and their activations."""
        codes = self.codes.take(position, position + 1)
        return codes.latents, codes.values

    def of(self, latent: int) -> Float[Tensor, "position"]:
        """A latent's activation at every position."""
        values = torch.zeros(len(self))
        matches = self.codes.latents == latent
        values[self.codes.row_ids[matches]] = self.codes.values[matches]
        return values

    def largest(self) -> Float[Tensor, "d_sae"]:
        """Each latent's largest activation in the text."""
        return torch.zeros(self.codes.d_sae).scatter_reduce_(0, self.codes.latents, self.codes.values, "amax")


@torch.no_grad()
def read_prompt(model: LanguageModel, dictionary: Dictionary, ids: Int[Tensor, "position"]) -> PromptReading:
    """Run the text twice, as it is and with the reconstruction put in.

    Args:
        ids: the text as the model reads it, the separator before it included.

    Raises:
        UserError: no token, or more than the model's context holds.
    """
    if not len(ids):
        raise UserError("the text has no token; write some")
    policy = build(TokenPolicy, dictionary.config.policy, where=f"token policy of the dictionary on {dictionary.site}")
    (row,) = without_sinks(model, policy, [_row(model, policy, ids)])
    keep = row.keep.to(model.device)
    read, writes = Site.parse(dictionary.site), written_sites(dictionary.config)
    last = Site(model.n_layers - 1, "resid_post")

    logits, x = model.from_position(row.ids.long(), 0)(list({read, *writes, last}))
    codes = dictionary.encode(x[read][keep].float())
    x_hat = dictionary.decode(codes)
    target = torch.cat([x[site][keep] for site in writes], dim=-1).float()
    parts = x_hat.split([model.width(site) for site in writes], dim=-1)
    with model.intervene(*(Intervention(s, _putting(part, keep)) for s, part in zip(writes, parts, strict=True))):
        rebuilt = model.logits(row.ids)
    error = torch.full((len(ids),), torch.nan)
    error[row.keep[0]] = ((target - x_hat).square().sum(-1) / target.square().sum(-1).clamp(min=1e-30)).cpu()
    likeliest = logits[0].topk(min(PREDICTED, model.d_vocab), dim=-1).indices
    return PromptReading(
        ids.cpu(), row.excluded[0], _spread(codes.to("cpu"), row.keep[0]), error, likeliest.cpu(),
        _prediction(logits[0], ids, likeliest), _prediction(rebuilt[0], ids, likeliest),
        model.final_scale(x[last][0]).cpu(),
    )  # fmt: skip


def _row(model: LanguageModel, policy: TokenPolicy, ids: Int[Tensor, "position"]) -> TokenRows:
    special = torch.tensor(special_ids(tokenizer_of(model)), dtype=torch.int32)
    row = ids.cpu().to(torch.int32)[None]
    offsets = torch.arange(len(ids), dtype=torch.int32)[None].masked_fill(torch.isin(row, special), NO_OFFSET)
    excluded = excluded_as_text(row, offsets, policy, special)
    return TokenRows(row, torch.zeros_like(row, dtype=torch.int64), offsets, excluded, Cursor(), Cursor(row=1))


def _putting(value: Float[Tensor, "kept width"], keep: Bool[Tensor, "1 position"]) -> Edit:
    def put(x: Float[Tensor, "1 position width"]) -> Float[Tensor, "1 position width"]:
        x = x.clone()
        x[keep] = value.to(x)
        return x

    return put


def _spread(codes: SparseCodes, keep: Bool[Tensor, "position"]) -> SparseCodes:
    """Codes of the kept positions as codes of all: the others have none."""
    counts = torch.zeros(len(keep), dtype=torch.int64)
    counts[keep] = codes.counts
    offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    return SparseCodes(codes.values.float(), codes.latents, offsets, codes.d_sae, (len(keep),))


def _prediction(
    logits: Float[Tensor, "position d_vocab"], ids: Int[Tensor, "position"], likeliest: Int[Tensor, "position some"]
) -> Prediction:
    logarithms = logits.float().log_softmax(-1)
    loss = torch.full((len(ids),), torch.nan)
    loss[:-1] = -logarithms[:-1].gather(1, ids[1:, None].to(logits.device))[:, 0].cpu()
    return Prediction(loss, logarithms.gather(1, likeliest).exp().cpu())


class Contrast(NamedTuple):
    """A latent in two texts."""

    latent: int
    one: float
    other: float


def most_different(one: Float[Tensor, "d_sae"], other: Float[Tensor, "d_sae"], n: int) -> list[Contrast]:
    """The latents whose activations differ most, the largest difference first; those that differ at all."""
    difference = (one - other).abs()
    order = difference.topk(min(n, len(difference))).indices
    return [Contrast(int(i), float(one[i]), float(other[i])) for i in order if difference[i] > 0]
