"""Parts of a report as the app shows them."""

from __future__ import annotations

from app.evaluations.parts import table
from saelab.evaluation.page import Cell, Table


def test_a_table_escapes_everything_and_tells_numbers_from_texts() -> None:
    rows = [["<b>", "0.5", "x" * 50], ["b", Cell("1,000", "[<1>]", "bad"), "short"], [Cell("all of it", mark="faint")]]
    shown = table(Table(["", "<n>", "what"], rows, title="<t>", caption=["<c>"]))
    assert "<b>" not in shown
    assert "<t>" not in shown
    assert "<c>" not in shown
    assert '<th class="sl-number" scope="col">&lt;n&gt;</th>' in shown
    assert '<td class="sl-number sl-bad">1,000 <span class="sl-faint">[&lt;1&gt;]</span></td>' in shown
    assert '<td class="sl-wraps">short</td>' in shown
    assert '<td class="sl-divider sl-faint" colspan="3">all of it</td>' in shown


def test_warnings_stand_below_the_table() -> None:
    shown = table(Table(["", "n"], [["a", "1"]], caption=["on some text"], warnings=["not <converged>"]))
    assert shown.index("not &lt;converged&gt;") < shown.index("on some text")
