"""`saelab neuronpedia`: feature index → the folder that Neuronpedia's bulk import reads."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

app = App(
    name="neuronpedia",
    usage="Usage: saelab neuronpedia RUN OUT [--model-id ID] [--source-set NAME] [--release NAME] [--repo USER/REPO]",
    help_epilogue="""Examples:
  saelab index runs/mine                        first
  saelab neuronpedia runs/mine out/mine --model-id gpt2-small --source-set res-mine --release mine
  saelab neuronpedia runs/mine out/mine --repo user/repo --creator "Ada Lovelace"

The folder out/mine/MODEL/LAYER-SET holds release, model, sourceset and source as .jsonl, features and activations as
.jsonl.gz. Neuronpedia's maintainers put it on the site; a server of your own imports it as it is.""",
)


@app.default
def neuronpedia(
    run: Path,
    out: Path,
    *,
    model_id: str | None = None,
    source_set: str | None = None,
    release: str | None = None,
    creator: str = "saelab",
    creator_id: str = "saelab",
    repo: str | None = None,
) -> None:
    """Write what the feature index knows of every latent as Neuronpedia's bulk import takes it.

    Parameters
    ----------
    run
        Run with a feature index.
    out
        Folder to make.
    model_id
        Neuronpedia's name of the language model; left out, the last part of the dictionary's.
    source_set
        Name for dictionaries of this kind, without the layer; left out, kind of site and name of the run.
    release
        Name of the release, letters, digits and dashes; left out, the source set's.
    creator
        Who made it.
    creator_id
        Id of the account that imports.
    repo
        Where the weights are on the Hub.
    """
    from saelab.hub.neuronpedia.export import export

    folder = export(
        run, out, model_id=model_id, source_set=source_set, release=release, creator=creator, creator_id=creator_id,
        repo=repo,
    )  # fmt: skip
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"wrote {folder} ({size / 1e6:,.1f} MB)")
