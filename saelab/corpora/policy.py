"""How text becomes rows of tokens, and which of the tokens count: recorded with everything that is made from them."""

from __future__ import annotations

from pydantic import Field, model_validator

from saelab.config import Config


class TokenPolicy(Config):
    """Packing and exclusion; a dictionary stores it, and evaluation, index and app honour it."""

    context: int = Field(default=256, ge=2)
    """Tokens in a packed row; at most the model's context length."""

    bos: bool = False
    """Begin every row with the tokenizer's beginning-of-sequence token."""

    cross_documents: bool = True
    """True: rows run on from one document into the next, nothing is lost. False: a row lies inside one document, and
    what does not fill a row is left out, unless `pad`."""

    pad: bool = False
    """With cross_documents false: nothing is left out; every document begins a row of its own, and one that ends inside
    a row is filled up on the right with tokens that take no part."""

    exclude_special: bool = True
    """Special tokens (separators, BOS, …) take no part in training and metrics."""

    exclude_first: int = Field(default=1, ge=0)
    """Positions at the start of each row that take no part: attention sinks, whose norms dwarf all others."""

    sink_site: str | None = Field(default=None, min_length=1)
    """Leave out attention sinks wherever they are: tokens whose activation at this site (blocks.2.resid_post) is
    unusually long."""

    sink_norm: float = Field(default=10.0, gt=1)
    """With sink_site: how many times as long as the median one of its row a sink's activation is."""

    @model_validator(mode="after")
    def _something_is_left(self) -> TokenPolicy:
        if self.exclude_first >= self.context:
            raise ValueError(f"exclude_first ({self.exclude_first}) leaves nothing of rows of {self.context} tokens")
        if self.pad and self.cross_documents:
            raise ValueError("pad fills up rows of single documents: set cross_documents to false, or pad to false")
        if self.sink_site is None and self.sink_norm != type(self).model_fields["sink_norm"].default:
            raise ValueError("sink_norm says nothing without sink_site; name a site, such as blocks.2.resid_post")
        return self
