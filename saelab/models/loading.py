"""From a name or a folder to a Hugging Face model and its tokenizer. Whatever is wrong is one sentence."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from saelab.errors import UserError
from saelab.models.placement import all_but_unneeded, resident_bytes, unhook_what_is_in_memory
from saelab.models.size import refuse_if_too_large
from saelab.models.source import Source, one_sentence, skeleton


def load_pretrained(
    source: Source,
    dtype: torch.dtype,
    device: torch.device,
    device_map: str | dict[str, Any] | None = None,
    attention: str | None = None,
    up_to: int | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model with its weights where they belong, and its tokenizer.

    Args:
        device_map: as transformers takes it; `device` and `up_to` then mean nothing.
        attention: transformers' name of an attention implementation; None for its own choice.
        up_to: leave what lies behind this block on the disk.

    Raises:
        UserError: files missing, damaged or not belonging together; too little memory.
    """
    bare = skeleton(source, dtype, attention)
    places = all_but_unneeded(bare, up_to, device) if device_map is None and up_to is not None else None
    if device_map is None:
        refuse_if_too_large(source.name, resident_bytes(bare, places), device)
    with one_sentence(source.name), _quiet():
        tokenizer = AutoTokenizer.from_pretrained(source.path, **source.options)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source.path,
            dtype=dtype,
            device_map=device_map or places or {"": device},
            attn_implementation=attention,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # and refused below, in words
            output_loading_info=True,
            **source.options,
        )
    model, report = loaded
    _check_whole(source.name, model, tokenizer, report)
    if places is not None:
        unhook_what_is_in_memory(model)
    return model, tokenizer


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


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers draws a bar per load, and saelab's stages have their own; accelerate says what is on the disk."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    dispatching = logging.getLogger("accelerate.big_modeling")
    level = dispatching.level
    dispatching.setLevel(logging.ERROR)
    try:
        yield
    finally:
        dispatching.setLevel(level)
        if shown:
            transformers_logging.enable_progress_bar()
