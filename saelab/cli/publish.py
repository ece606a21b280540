"""`saelab publish`: finished runs → a repository on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from saelab.errors import UserError

app = App(
    name="publish",
    usage="Usage: saelab publish RUN... USER/NAME [OPTIONS]",
    help_epilogue="""Examples:
  saelab publish runs/a user/name --license mit
  saelab publish runs/a runs/b user/name --private    several, side by side
  saelab publish runs/a user/name --dry-run folder    look at it first

`hf auth login` (or HF_TOKEN) says who you are. Stopped halfway, the same command finishes.
A repository's card is written anew each time; dictionaries that it holds already stay in it.""",
)


@app.default
def publish(
    *words: Annotated[str, Parameter(show=False)],
    license: str | None = None,
    base_model: str | None = None,
    private: bool = False,
    branch: str | None = None,
    pull_request: bool = False,
    message: str | None = None,
    include_index: bool = False,
    only_saelab: bool = False,
    dry_run: Path | None = None,
    force: bool = False,
) -> None:
    """Publish finished runs: weights, settings, reports and a model card.

    Parameters
    ----------
    license
        As the Hub writes it: mit, apache-2.0, cc-by-4.0, ...
    base_model
        The language model's name on the Hub, where a run names a folder of this machine.
    private
        Make the repository a private one.
    branch
        Commit there; it is made where it does not exist.
    pull_request
        Propose the change to a repository that exists.
    message
        Of the commit.
    include_index
        The feature index too. It holds passages of the text that it was made from.
    only_saelab
        Without the copy in SAELens' format.
    dry_run
        Write the exact folder and card here instead.
    force
        Publish what has no evaluation, or one of other weights; the card says so.
    """
    if len(words) < 2:
        raise UserError("say what goes where: saelab publish RUN... USER/NAME")

    from saelab.hub import publish as stage

    publication = stage.Publication(
        runs=tuple(Path(word) for word in words[:-1]), repo=words[-1], private=private, branch=branch,
        pull_request=pull_request, message=message, license=license, base_model=base_model,
        include_index=include_index, saelens=not only_saelab, force=force,
    )  # fmt: skip
    if dry_run is not None:
        stage.dry_run(publication, dry_run)
        print(f"{dry_run} holds what would be published; nothing was sent. Read {dry_run}/README.md")
    else:
        print(f"published: {stage.publish(publication)}")
