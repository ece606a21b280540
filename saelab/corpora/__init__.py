"""Text: documents from anywhere, numbered and seekable, turned into rows of tokens.

`CorpusConfig` says which text, `TokenPolicy` how it is cut and which tokens count, `pack` gives the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from saelab.lazy import exports

if TYPE_CHECKING:
    from saelab.corpora.config import CorpusConfig as CorpusConfig
    from saelab.corpora.documents import Document as Document
    from saelab.corpora.documents import Span as Span
    from saelab.corpora.packing import leftover as leftover
    from saelab.corpora.packing import pack as pack
    from saelab.corpora.policy import TokenPolicy as TokenPolicy
    from saelab.corpora.row_labels import label_rows as label_rows
    from saelab.corpora.rows import Cursor as Cursor
    from saelab.corpora.rows import Reason as Reason
    from saelab.corpora.rows import TokenRows as TokenRows
    from saelab.corpora.sources import is_endless as is_endless
    from saelab.corpora.sources import numbered_documents as numbered_documents
    from saelab.corpora.tokens import separator_id as separator_id
    from saelab.corpora.tokens import special_ids as special_ids

__getattr__, __all__ = exports(  # pyright: ignore[reportUnsupportedDunderAll]
    __name__,
    {
        "CorpusConfig": "saelab.corpora.config",
        "Cursor": "saelab.corpora.rows",
        "Document": "saelab.corpora.documents",
        "Span": "saelab.corpora.documents",
        "Reason": "saelab.corpora.rows",
        "TokenPolicy": "saelab.corpora.policy",
        "TokenRows": "saelab.corpora.rows",
        "numbered_documents": "saelab.corpora.sources",
        "is_endless": "saelab.corpora.sources",
        "label_rows": "saelab.corpora.row_labels",
        "leftover": "saelab.corpora.packing",
        "pack": "saelab.corpora.packing",
        "separator_id": "saelab.corpora.tokens",
        "special_ids": "saelab.corpora.tokens",
    },
)
