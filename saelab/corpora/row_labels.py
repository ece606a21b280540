"""What is true of each packed token: the labels of a generated corpus, computed again for just the rows asked about."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool
from torch import Tensor

from saelab.corpora.config import GENERATED, CorpusConfig
from saelab.corpora.packing import TokenRows
from saelab.corpora.sources import writer
from saelab.corpora.tokens import character_offsets
from saelab.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def label_rows(
    rows: TokenRows, corpus: CorpusConfig, tokenizer: PreTrainedTokenizerFast
) -> Bool[Tensor, "n context labels"]:
    """Labels of every token of `rows`, columns in the order of `microworld.LABELS`; what is no text carries none.

    Nothing is stored with the rows: a document is written again from its number, at the cost of
    tokenising it. Raises UserError for a corpus without labels.
    """
    from saelab.corpora.microworld import LABELS
    from saelab.corpora.microworld.tokens import token_labels

    if corpus.source not in GENERATED:
        raise UserError(f"corpus {corpus.source!r} has no labels; only {' and '.join(GENERATED)} have")
    write = writer(corpus)
    labels = torch.zeros((*rows.ids.shape, len(LABELS)), dtype=torch.bool)
    is_text = rows.offsets >= 0
    for number in rows.documents[is_text].unique().tolist():
        document = write(number)
        of_document = torch.from_numpy(token_labels(document, character_offsets(document.text, tokenizer)))
        here = is_text & (rows.documents == number)
        labels[here] = of_document[rows.offsets[here].long()]
    return labels
