"""Do two trainings find the same directions? Nearest and matched decoder rows of two dictionaries.

Source: mean max cosine as in the toy experiments of sparse dictionary learning (arXiv 2309.08600, section 3). The
one-to-one matching is our reading of METHODS §4: nearest rows alone would let many latents claim the same one.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from saelab.dictionaries.dictionary import Dictionary
from saelab.errors import UserError
from saelab.evaluation.matching import match, nearest
from saelab.evaluation.provenance import ReportPart
from saelab.evaluation.report import Number, number


class Stability(ReportPart):
    """How far the latents of dictionary a are those of dictionary b, by their decoder directions in model units."""

    mean_max_cosine_ab: Number = number(
        "Mean max cosine, a in b", "Decoder cosine of each latent of a with its nearest in b, mean over a.", ""
    )
    mean_max_cosine_ba: Number = number(
        "Mean max cosine, b in a", "Decoder cosine of each latent of b with its nearest in a, mean over b.", ""
    )
    matched_latents: int = number(
        "Latents matched", "Latents of the smaller dictionary: each looks for a partner of its own.", "latents"
    )
    matched_cosine: Number = number(
        "Matched cosine", "Mean decoder cosine of one-to-one partners (largest sum); 0 for a latent without one.", ""
    )
    matched_over_07: Number = number("Matched above 0.7", "Share of matched latents whose cosine is above 0.7.", "")
    matched_over_09: Number = number("Matched above 0.9", "Share of matched latents whose cosine is above 0.9.", "")
    matched_gap: Number = number(
        "Room in the matching",
        "How much higher the matched cosine of the best matching can be at most; 0 where the search was exact.",
        "",
    )
    encoder_cosine: Number = number(
        "Encoder cosine of partners", "Mean cosine of the encoder rows of one-to-one partners.", ""
    )


def stability(a: Dictionary, b: Dictionary) -> Stability:
    """Hold the latents of two dictionaries against each other; memory beyond the weights is bounded by tiles.

    A decoder row of length 0 has cosine 0 with everything. Dead latents count as any other: a dictionary does not say
    which of its latents fire.

    Raises:
        UserError: they don't read and write at the same sites of one model.
    """
    _check_comparable(a, b)
    few, many = (a, b) if a.d_sae <= b.d_sae else (b, a)
    rows, columns = _unit(few), _unit(many).to(few.W_dec.device)
    near = nearest(rows, columns)
    matching = match(rows, columns, near)
    of_few, of_many = float(near.of_rows.double().mean()), float(near.of_columns.double().mean())
    return Stability(
        mean_max_cosine_ab=of_few if few is a else of_many,
        mean_max_cosine_ba=of_many if few is a else of_few,
        matched_latents=few.d_sae,
        matched_cosine=float(matching.cosine.mean()),
        matched_over_07=float((matching.cosine > 0.7).double().mean()),
        matched_over_09=float((matching.cosine > 0.9).double().mean()),
        matched_gap=matching.gap,
        encoder_cosine=_encoder_cosine(few, many, matching.column),
    )


def _unit(dictionary: Dictionary) -> Float[Tensor, "d_sae d_out"]:
    return normalize(dictionary.decoder_directions().float(), dim=1)


def _encoder_cosine(few: Dictionary, many: Dictionary, column: Tensor) -> float | None:
    """None where no latent has a partner."""
    paired = (column >= 0).nonzero()[:, 0]
    if not len(paired):
        return None
    ours, theirs = few.W_enc.cpu()[paired], many.W_enc.cpu()[column[paired]]
    return float(cosine_similarity(ours.float(), theirs.float()).double().mean())


def _check_comparable(a: Dictionary, b: Dictionary) -> None:
    ours, theirs = a.config, b.config
    known = ours.model_fingerprint and theirs.model_fingerprint
    if known and ours.model_fingerprint != theirs.model_fingerprint:
        raise UserError(
            f"directions of two models can't be compared: {ours.model} and {theirs.model} have different weights"
        )
    places = [(c.site, *(target.site for target in c.targets)) for c in (ours, theirs)]
    if places[0] != places[1] or (a.d_in, a.d_out) != (b.d_in, b.d_out):
        first, second = (f"{' → '.join(place)} ({d.d_out} numbers)" for place, d in zip(places, (a, b), strict=True))
        raise UserError(f"directions at different sites can't be compared: {first} and {second}")
