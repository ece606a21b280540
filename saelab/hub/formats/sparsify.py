"""EleutherAI's sparsify (cfg.json, sae.safetensors in a folder named after the module): topk, and transcoders."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from saelab.dictionaries.config import TokenChoice
from saelab.dictionaries.dictionary import Dictionary
from saelab.disk import staged_directory, write_json
from saelab.disk.tensors import write_tensors
from saelab.errors import UserError
from saelab.hub.formats.format import Entry, Imported, beside
from saelab.hub.formats.parts import Origin, Parts, plain
from saelab.hub.formats.places import module_of, of_module
from saelab.hub.formats.untrusted import MOST_INPUTS, MOST_LATENTS, Settings, read_weights
from saelab.models.site import UNKNOWN

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
_KEYS = {
    "activation", "expansion_factor", "normalize_decoder", "num_latents", "k", "multi_topk", "skip_connection",
    "transcode", "d_in", "signed",
}  # fmt: skip
_SEED = "seed"  # folders below a module's: one dictionary for each seed


@dataclass(frozen=True)
class Sparsify:
    """`z = relu((x − b_dec) W_encᵀ + b)`, the k largest kept; transcoders do not centre. Source: sparse_coder.py."""

    name: str = "sparsify"

    def found(self, names: Collection[str]) -> list[Entry]:
        return list(beside(names, (CONFIG, WEIGHTS)))

    def recognises(self, folder: Path) -> bool:
        if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
            return False
        settings = Settings.load(folder / CONFIG)
        return "d_in" in settings and ("expansion_factor" in settings or "num_latents" in settings)

    def read(self, folder: Path) -> Imported:
        settings = Settings.load(folder / CONFIG)
        settings.only(_KEYS, "saelab knows in sparsify's cfg.json, so what it changes can't be told")
        if (activation := settings.text("activation") or "topk") != "topk":
            settings.refuse("activation", f"is {activation!r}; only topk is supported")
        if settings.flag("skip_connection", False):
            settings.refuse("skip_connection", "is on: no Dictionary has a skip connection")
        if settings.flag("signed", False):
            settings.refuse("signed", "is on: latents that fire on negative values are not supported")
        d = settings.integer("d_in", MOST_INPUTS)
        F = settings.integer("num_latents", MOST_LATENTS, 0) if "num_latents" in settings else 0
        F = F or d * settings.integer("expansion_factor", MOST_LATENTS // d)
        shapes = {"encoder.weight": (F, d), "encoder.bias": (F,), "W_dec": (F, d), "b_dec": (d,)}
        weights, precision = read_weights(folder / WEIGHTS, shapes)
        transcodes = settings.flag("transcode", False)
        made, notes = _origin(folder, transcodes, settings.integer("k", F))
        if precision != "float32":
            notes.append(f"weights were stored as {precision} and are computed with in float32")
        parts = Parts(
            weights["encoder.weight"], weights["W_dec"], weights["encoder.bias"], weights["b_dec"], not transcodes
        )
        dictionary = parts.assemble(TokenChoice(), made)
        return Imported(dictionary, (*notes, *made.notes()))

    def write(self, dictionary: Dictionary, folder: Path) -> tuple[str, ...]:
        if dictionary.config.rule == "threshold":
            raise UserError(
                f"sparsify has only topk: it can't express the thresholds of {dictionary.config.architecture}"
            )
        folded = plain(dictionary, "sparsify", transcoders=True)
        config = folded.config
        if folded.d_out != folded.d_in:
            raise UserError(f"sparsify's transcoders write as many numbers as they read, not {folded.d_out}")
        weights = {"encoder.weight": folded.W_enc, "encoder.bias": folded.b_enc}
        with staged_directory(folder) as staging:
            write_tensors(staging / WEIGHTS, weights | {"W_dec": folded.W_dec, "b_dec": folded.b_dec})
            write_json(
                staging / CONFIG,
                {
                    "activation": "topk", "expansion_factor": max(1, config.d_sae // config.d_in),
                    "normalize_decoder": False, "num_latents": config.d_sae, "k": config.k, "multi_topk": False,
                    "skip_connection": False, "transcode": bool(config.targets), "d_in": config.d_in,
                },
            )  # fmt: skip
        module = None if config.targets else module_of(config.site, config.model)
        advice = f"; sparsify expects the folder's name to be {module}" if module else ""
        return (f"cfg.json has no place for the model, the site or the token policy{advice}",)


def _origin(folder: Path, transcodes: bool, k: int) -> tuple[Origin, list[str]]:
    """The module that the folder is named after, if it is named after one."""
    path = folder.resolve()
    name = path.parent.name if path.name.removeprefix(_SEED).isdecimal() and path.name.startswith(_SEED) else path.name
    site = of_module(name)
    if site is None:
        return Origin("sparsify", target=UNKNOWN if transcodes else "", k=k), []
    notes = [f"the site is the module that the folder is named after, {name}"]
    if not transcodes:
        return Origin("sparsify", site, k=k), notes
    return Origin("sparsify", f"input of {name}", site, k=k), notes
