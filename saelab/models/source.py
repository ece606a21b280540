"""What a model's name means: a folder or a repository on the Hub, and the configuration in it. No weight is read."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from saelab.disk import bundled
from saelab.errors import UserError

HUB_TIMEOUT: Final = 10.0  # seconds to wait for the Hub's answer about a repository


@dataclass(frozen=True)
class Source:
    """Where a model's files are: checked to be there, but not read."""

    name: str
    path: str
    """Folder, or name on the Hub."""
    commit: str | None
    """Of the Hub; None for a folder."""
    options: dict[str, Any]
    """What every `from_pretrained` of transformers is told."""


def locate(name_or_path: str | Path, revision: str | None = None) -> Source:
    """ "demo" (the bundled model), a local folder, or a name on the Hub, whose `revision` becomes a commit.

    Raises:
        UserError: no such folder or name, or a folder without the files of a model.
    """
    name = str(name_or_path)
    if name == "demo":
        folder: Path | None = bundled("artifacts/demo-model")
        if not folder.is_dir():
            raise UserError("the bundled model is missing from this installation; install saelab again")
    else:
        folder = _folder(name)
    if folder is None:
        revision, online = _hub_commit(name, revision)
    else:
        if revision is not None:
            raise UserError(f"revision {revision!r} has no meaning for the folder {name}; leave it out")
        _check_folder(folder)
        online = False
    options: dict[str, Any] = {"revision": revision, "local_files_only": not online, "trust_remote_code": False}
    return Source(name, name if folder is None else str(folder), revision, options)


def skeleton(source: Source, dtype: torch.dtype, attention: str | None = None) -> PreTrainedModel:
    """The model as its config.json describes it, without weights (on the meta device).

    Raises:
        UserError: config.json can't be read, isn't a causal language model's, or asks for other attention than it has.
    """
    with one_sentence(source.name):
        config = AutoConfig.from_pretrained(source.path, **source.options)
        if type(config) not in AutoModelForCausalLM._model_mapping:
            raise UserError(
                f"model {source.name!r} is of type {config.model_type!r}, which isn't a causal language model"
            )
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)


@contextmanager
def one_sentence(name: str) -> Iterator[None]:
    """Turn what the loaders raise for missing or damaged files into a sentence."""
    try:
        yield
    except SafetensorError as error:
        raise UserError(f"the weights of model {name!r} are damaged: {error}") from error
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"model {name!r} can't be loaded: {reason}") from error


def _folder(name: str) -> Path | None:
    """The folder that `name` means, or None if it is a name on the Hub."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(f"model {name!r} is a file; give the folder that holds config.json and model.safetensors")
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise UserError(f"model folder {name} does not exist")
    return None


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise UserError(f"model folder {folder} has no config.json")
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"model folder {folder} has no safetensors weights (model.safetensors); others aren't read")
    if not (folder / "tokenizer.json").is_file():
        raise UserError(f"model folder {folder} has no tokenizer.json")


def _hub_commit(name: str, revision: str | None) -> tuple[str | None, bool]:
    """The commit that `revision` (default: the main branch) is now, and whether the Hub answered."""
    where = f"model {name!r}" if revision is None else f"revision {revision!r} of model {name!r}"
    try:
        return HfApi().model_info(name, revision=revision, timeout=HUB_TIMEOUT).sha, True
    except HFValidationError:
        raise UserError(f"model {name!r} is neither a folder nor a name on the Hugging Face Hub") from None
    except GatedRepoError:
        raise UserError(
            f"{where} is gated: accept its terms on the Hugging Face Hub and log in with `hf auth login`"
        ) from None
    except RevisionNotFoundError:
        raise UserError(f"{where} does not exist on the Hugging Face Hub") from None
    except RepositoryNotFoundError:
        raise UserError(f"{where} is neither a folder nor a public model on the Hugging Face Hub") from None
    except (HfHubHTTPError, httpx.TransportError, OfflineModeIsEnabled):
        return revision, False
