"""`saelab pull`: a dictionary from the Hugging Face Hub → a run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from saelab.errors import UserError

if TYPE_CHECKING:
    from saelab.hub.listing import Listing

app = App(
    name="pull",
    usage="Usage: saelab pull USER/NAME[:ID][@REVISION] [OPTIONS]",
    help_epilogue="""Examples:
  saelab pull user/name                  the only dictionary, or a list of all
  saelab pull user/name:layer_6@v1.0     one of them, as of a tag
  saelab evaluate saelab-runs/layer_6    and then as any run of your own

Formats: saelab, SAELens, sparsify, dictionary_learning, Gemma Scope,
circuit-tracer. Without a connection, what was downloaded before is found in
huggingface_hub's cache.""",
)


@app.default
def pull(
    source: str,
    *,
    out: Path | None = None,
    site: str | None = None,
    target: str | None = None,
    model: str | None = None,
    include_index: bool = False,
    overwrite: bool = False,
) -> None:
    """Download a dictionary, check it, and make it a run.

    Parameters
    ----------
    source
        USER/NAME[:ID][@REVISION].
    out
        Folder of the run; left out, it is named after the dictionary.
    site
        Where it reads, of a format whose files do not say it: blocks.6.resid_post.
    target
        Where it writes, if it is a transcoder and its files do not say so.
    model
        Its language model, where the files do not say it.
    include_index
        The feature index too.
    overwrite
        Replace another dictionary that was pulled to the same folder.
    """
    from saelab.hub.reference import parse

    reference = parse(source)
    if reference is None:
        raise UserError(f"{source!r} is no dictionary on the Hub; write USER/NAME[:ID][@REVISION]")

    from saelab.hub.listing import listing as look
    from saelab.hub.pull import Placed
    from saelab.hub.pull import pull as stage

    listing = look(reference)
    if reference.id is None and len(listing.dictionaries()) > 1:
        show(listing)
        return
    folder = out or _named_after(listing.choose(reference.id).id or reference.repo)
    placed = Placed(site=site, target=target, model=model)
    record = stage(listing, reference, folder, placed, include_index, overwrite)
    cached = " (from the cache: the Hub can't be reached)" if listing.from_cache else ""
    print(f"{folder}: {record.repo}:{record.id} as of {record.commit[:12]}{cached}, format {record.format}, checked")
    for note in record.notes:
        print(f"  note: {note}")


def show(listing: Listing) -> None:
    """One line for each dictionary of a repository."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    found = listing.dictionaries()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("dictionary", "format", "MB"):
        table.add_column(name, justify="right" if name == "MB" else "left", overflow="fold")
    for one in found:
        table.add_row(one.id or ".", one.formats, f"{listing.size(one.files) / 1e6:.1f}")
    console = Console()
    console.print(f"{listing.repo} as of {listing.commit[:12]} holds {len(found)} dictionaries; nothing was pulled")
    console.print(table)
    console.print(f"next: saelab pull {listing.repo}:{found[0].id}", markup=False)


def _named_after(id: str) -> Path:
    from saelab.cli.places import runs_folder

    return runs_folder() / id.rpartition("/")[2]
