"""Sites are read, printed and sorted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saelab.errors import UserError
from saelab.models.site import HEAD_KINDS, KINDS, Site

whole = st.builds(Site, st.integers(0, 200), st.sampled_from(KINDS))
heads = st.builds(Site, st.integers(0, 200), st.sampled_from(HEAD_KINDS), st.integers(0, 200))
sites = whole | heads


@given(sites)
def test_printing_and_reading_is_a_round_trip(site):
    assert Site.parse(str(site)) == site


@given(whole)
def test_hook_names_are_read_too(site):
    assert Site.parse(site.hook_name) == site


@given(heads)
def test_a_heads_hook_name_is_the_whole_sites(site):
    assert site.hook_name == Site(site.layer, site.kind).hook_name
    assert Site.parse(f"{site.hook_name}.head{site.head}") == site


@pytest.mark.parametrize(
    ("text", "site", "hook_name"),
    [
        ("blocks.2.hook_resid_post", Site(2, "resid_post"), "blocks.2.hook_resid_post"),
        ("blocks.2.resid_post", Site(2, "resid_post"), "blocks.2.hook_resid_post"),
        ("blocks.7.attn.hook_z.head3", Site(7, "z", 3), "blocks.7.attn.hook_z"),
        ("blocks.10.attn.k", Site(10, "k"), "blocks.10.attn.hook_k"),
    ],
)
def test_familiar_spellings(text, site, hook_name):
    assert Site.parse(text) == site
    assert site.hook_name == hook_name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "resid_post",
        "blocks.2",
        "blocks.-1.resid_post",
        "blocks.2.resid",
        "blocks.2.z",
        "blocks.2.attn.resid_post",
        "blocks.2.attn.z.head",
        "blocks.2.attn.z.head-1",
        "blocks.2.attn.pattern",
        "blocks.2.resid_post ; drop",
    ],
)
def test_what_is_no_site(text):
    with pytest.raises(UserError, match=r"can't be read; write blocks\.<layer>\.<kind>"):
        Site.parse(text)


def test_only_attentions_inside_has_heads():
    with pytest.raises(UserError, match="only q, k, v, z have heads"):
        Site.parse("blocks.2.resid_post.head1")
    with pytest.raises(UserError, match="unknown"):
        Site(0, "pattern")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="count from 0"):
        Site(-1, "z")


def test_sites_sort_in_the_order_of_the_forward_pass():
    forward = ["0.resid_pre", "0.attn.v", "0.attn.z", "0.attn.z.head0", "0.attn.z.head10", "0.attn_out"]
    forward += ["0.resid_mid", "0.mlp_out", "0.resid_post", "1.resid_pre", "11.attn.q"]
    expected = [Site.parse(f"blocks.{text}") for text in forward]
    assert sorted(set(expected)) == expected
