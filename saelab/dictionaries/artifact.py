"""A dictionary on disk: weights, configuration, and a golden input/output pair that is checked at every load."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.config import build
from saelab.dictionaries.config import SCHEMA_VERSION, DictionaryConfig
from saelab.dictionaries.dictionary import Dictionary
from saelab.disk import RunPaths, read_json, sha256, staged_directory, write_json
from saelab.disk.layout import DictionaryPaths
from saelab.disk.tensors import read_tensors, write_tensors
from saelab.errors import UserError

TOLERANCE = 1e-4  # relative, of golden values: far above fp32 rounding on any machine, far below any real change


def save(dictionary: Dictionary, path: Path, golden: Float[Tensor, "n d"]) -> None:
    """Write `dictionary` to the directory `path` in one step.

    Raises:
        UserError: a weight is NaN or infinite, or `path` exists.
    """
    _require_finite({name: getattr(dictionary, name) for name in _shapes(dictionary.config)}, str(path))
    with staged_directory(path) as staging:
        write(dictionary, staging, golden)


def write(dictionary: Dictionary, directory: Path, golden: Float[Tensor, "n d"]) -> None:
    """The files of `dictionary` into a directory that is there (a staged one)."""
    names = DictionaryPaths(directory)
    write_tensors(names.weights, {name: getattr(dictionary, name) for name in _shapes(dictionary.config)})
    config = dictionary.config.model_copy(update={"weights_sha256": sha256(names.weights)})
    write_json(names.config, config.model_dump(mode="json"))
    codes = dictionary.encode(golden)
    write_tensors(
        names.golden,
        {
            "x": golden, "x_hat": dictionary.decode(codes), "values": codes.values,
            "latents": codes.latents, "offsets": codes.offsets,
        },
    )  # fmt: skip


def load(path: Path | str, device: torch.device | str = "cpu") -> Dictionary:
    """Load a dictionary from its directory, or from the run directory that holds it.

    Raises:
        UserError: not a dictionary, a newer schema, damaged weights, or a golden check that fails.
    """
    names = _find(Path(path))
    content = read_json(names.config)
    if isinstance(content, dict) and content.get("schema_version", 0) > SCHEMA_VERSION:
        raise UserError(f"{names.config} has schema version {content['schema_version']}; update saelab to read it")
    config = build(DictionaryConfig, content, where=str(names.config))
    tensors = read_tensors(names.weights)
    if sha256(names.weights) != config.weights_sha256:
        raise UserError(f"{names.weights} does not match the checksum in its config.json; it was changed or damaged")
    _check_shapes(tensors, config, names.weights)
    _require_finite(tensors, str(names.weights))
    dictionary = Dictionary(**tensors, config=config)
    check_golden(dictionary, names.golden)
    return dictionary.to(device)


def check_golden(dictionary: Dictionary, path: Path) -> None:
    """Encode and decode the golden inputs again and compare with what was stored.

    Compared are the reconstruction and the sum of the codes, so that two latents of all but equal value may change
    places on another machine, but nothing that matters can change unseen.

    Raises:
        UserError: the dictionary no longer computes what it computed when it was saved.
    """
    golden = read_tensors(path)
    missing = {"x", "x_hat", "values", "latents", "offsets"} - golden.keys()
    if missing:
        raise UserError(f"{path} lacks {', '.join(sorted(missing))}")
    x_hat = dictionary(golden["x"].to(dictionary.W_enc.device)).cpu()
    error = float((x_hat - golden["x_hat"]).norm() / golden["x_hat"].norm().clamp(min=1e-30))
    codes = dictionary.encode(golden["x"].to(dictionary.W_enc.device)).to("cpu")
    stored = float(golden["values"].double().sum())
    drift = abs(float(codes.values.double().sum()) - stored) / max(abs(stored), 1e-30)
    if not (error < TOLERANCE and drift < TOLERANCE):
        raise UserError(
            f"{path.parent} fails its golden check (reconstruction off by {error:.1e}, codes by {drift:.1e}): "
            "these weights do not compute what they computed when they were saved"
        )


def _find(path: Path) -> DictionaryPaths:
    for candidate in (path, RunPaths(path).dictionary):
        if DictionaryPaths(candidate).config.is_file() and DictionaryPaths(candidate).weights.is_file():
            return DictionaryPaths(candidate)
    if RunPaths(path).config.is_file():
        raise UserError(f"{path} is a run without a finished dictionary; `saelab train` continues it")
    what = "is not a dictionary or a run" if path.exists() else "does not exist"
    raise UserError(f"{path} {what}")


def _shapes(config: DictionaryConfig) -> dict[str, tuple[int, ...]]:
    """Which tensors a dictionary consists of."""
    F, d, d_out = config.d_sae, config.d_in, config.d_out
    threshold = (F,) if config.rule == "threshold" else (0,)
    shapes: dict[str, tuple[int, ...]] = {
        "W_enc": (F, d), "W_dec": (F, d_out), "b_enc": (F,), "b_dec": (d_out,), "threshold": threshold
    }  # fmt: skip
    return shapes | ({"gain": (F,), "shift": (F,)} if config.allocation.kind == "gated" else {})


def _check_shapes(tensors: dict[str, Tensor], config: DictionaryConfig, path: Path) -> None:
    expected = _shapes(config)
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != expected:
        raise UserError(f"{path} holds {found} where its config.json promises {expected}")


def _require_finite(tensors: dict[str, Tensor], where: str) -> None:
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise UserError(f"{where}: {name} holds NaN or infinite numbers")
