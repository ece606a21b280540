"""Patterns of sites."""

from __future__ import annotations

import pytest

from saelab.activations.sites import expand_sites
from saelab.errors import UserError
from saelab.models import LanguageModel


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["blocks.1.resid_post"], ["blocks.1.resid_post"]),
        (["blocks.*.resid_post"], ["blocks.0.resid_post", "blocks.1.resid_post"]),
        (["blocks.1.mlp_out", "blocks.0.hook_resid_pre"], ["blocks.0.resid_pre", "blocks.1.mlp_out"]),
        (["blocks.1.attn.z.head*"], ["blocks.1.attn.z.head0", "blocks.1.attn.z.head1"]),
        (["blocks.*.attn.q.head1"], ["blocks.0.attn.q.head1", "blocks.1.attn.q.head1"]),
        (["blocks.*.resid_post", "blocks.1.resid_post"], ["blocks.0.resid_post", "blocks.1.resid_post"]),
    ],
)
def test_patterns(model: LanguageModel, patterns: list[str], names: list[str]):
    assert [str(site) for site in expand_sites(patterns, model)] == names


@pytest.mark.parametrize(
    "pattern", ["blocks.9.resid_post", "blocks.*.nowhere", "layer 3", "blocks.0.attn.z.head7", "*"]
)
def test_sites_that_are_not_there(model: LanguageModel, pattern: str):
    with pytest.raises(UserError, match="site"):
        expand_sites([pattern], model)
