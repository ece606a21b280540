"""From a name or a folder to a Hugging Face model and its tokenizer. Whatever is wrong is one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
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
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from saelab.disk import bundled
from saelab.errors import UserError

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
HUB_TIMEOUT: Final = 10.0  # seconds to wait for the Hub's answer about a repository


def resolve_dtype(dtype: str) -> torch.dtype:
    """ "float32", "bfloat16" or "float16"."""
    if dtype not in DTYPES:
        raise UserError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}")
    return DTYPES[dtype]


def resolve_device(device: str) -> torch.device:
    """ "auto" is the first there is of CUDA, Apple's MPS, and the CPU."""
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if device == "auto":
        return torch.device(available[0])
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise UserError(f"device is {device!r}; it must be auto, cpu, cuda, cuda:<number> or mps") from None
    if resolved.type not in available:
        raise UserError(f"device is {device!r}, but this machine has {', '.join(available)}")
    return resolved


def load_pretrained(
    name_or_path: str | Path, dtype: torch.dtype, device: torch.device, revision: str | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, str | None]:
    """A causal language model in `dtype` on `device`, its tokenizer, and the Hub's commit (None for a folder).

    Only safetensors are read and no code from a repository is run. Without a connection, what the Hugging Face cache
    holds is used.

    Raises:
        UserError: nothing there, something missing or damaged, or an architecture that transformers doesn't know.
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
    source = name if folder is None else str(folder)
    options: dict[str, Any] = {"revision": revision, "local_files_only": not online, "trust_remote_code": False}
    with _one_sentence(name), _no_progress_bars():
        config = AutoConfig.from_pretrained(source, **options)
        if type(config) not in AutoModelForCausalLM._model_mapping:
            raise UserError(f"model {name!r} is of type {config.model_type!r}, which isn't a causal language model")
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # and refused below, in words
            output_loading_info=True,
            **options,
        )
    model, report = loaded
    _check_whole(name, model, tokenizer, report)
    return model.to(device), tokenizer, revision


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


def _check_whole(name: str, model: Any, tokenizer: Any, report: Any) -> None:
    """transformers fills gaps with random numbers and a warning; here they are errors."""
    missing, mismatched = sorted(report["missing_keys"]), sorted(report["mismatched_keys"])
    if missing:
        raise UserError(f"model {name!r} has no weights for {missing[0]} ({len(missing)} missing in all)")
    if mismatched:
        key, found, expected = mismatched[0]
        raise UserError(f"model {name!r} has {key} of shape {list(found)} where its config.json says {list(expected)}")
    d_vocab = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > d_vocab:
        raise UserError(
            f"the tokenizer of {name!r} has {len(tokenizer)} tokens but the model embeds only {d_vocab}; "
            "they don't belong together"
        )


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


@contextmanager
def _one_sentence(name: str) -> Iterator[None]:
    """Turn what the loaders raise for missing or damaged files into a sentence."""
    try:
        yield
    except SafetensorError as error:
        raise UserError(f"the weights of model {name!r} are damaged: {error}") from error
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"model {name!r} can't be loaded: {reason}") from error


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """transformers draws a bar per load; saelab's stages have their own."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
