"""The list of commands. Each is a module of its own, imported when it is named."""

from __future__ import annotations

from cyclopts import App, Parameter

from saelab import __version__

app = App(
    name="saelab",
    version=__version__,
    help="""Train sparse autoencoders on a language model's activations, judge them, browse and steer their features.

Start with `saelab demo`: the whole road on a small bundled model, nothing to download, about three minutes.""",
    help_epilogue="""The road, one command a stage (each continues when it is run again):
  saelab train CONFIG --out runs/mine    a dictionary; activations as they come
  saelab evaluate runs/mine              how faithful, how sparse, at what cost
  saelab index runs/mine                 what every latent fires on
  saelab browse runs/mine                look at it""",
    help_format="plaintext",
    default_parameter=Parameter(negative=(), show_default=False),
    suppress_keyboard_interrupt=False,
)

# The first line stands in the list; all of it stands above the command's own help.
COMMANDS = {
    "demo": """The whole road on the bundled model, then the app.

About three minutes on two CPU cores; nothing is downloaded.""",
    "harvest": """Store a model's activations on disk.

Many sites in one pass; `saelab train --activations DIR` reads them. Run again, it continues.""",
    "train": """Train a dictionary, or many at once.

The same command run again continues what is unfinished and leaves the rest.""",
    "evaluate": """Measure dictionaries on held-out text.

Reports go to RUN/evaluation/*.json. Runs that fit together share one pass over the model.""",
    "compare": """Hold finished runs against each other.

Paired differences with significance, at the same L0 too; tables, and a page for an appendix.""",
    "ioi": """Judge dictionaries against supervised ones.

The task is indirect object identification, whose answer is known; tables, and a page with figures.""",
    "calibrate": """Estimate a finished dictionary's thresholds anew.

It says what would change; --write changes it, --restore brings the thresholds of training back.""",
    "index": """Find what every latent fires on, for browsing.

Examples, statistics and promoted tokens go to RUN/features as Parquet tables.""",
    "browse": """Open the app on finished runs.

It answers on this machine only, until Ctrl-C.""",
    "steer": "Continue a prompt while latents are turned up or down.",
    "inspect": "Say what a path or a repository holds, and check it.",
    "publish": """Put finished runs on the Hugging Face Hub.

Weights, settings, reports and a model card. --dry-run DIR writes the same folder here.""",
    "pull": """Download a dictionary from the Hugging Face Hub, in any format.

It is checked, pinned to a commit, and becomes a run; with several to choose from, they are listed.""",
    "convert": """Carry a dictionary into or out of another tool's format.

SAELens, sparsify and dictionary_learning; what was written is read back and compared.""",
    "neuronpedia": """Write what the feature index knows as Neuronpedia's bulk import takes it.

Statistics, examples, promoted tokens and decoder rows of every latent, checked row by row.""",
    "settings": "Explain every setting of a command.",
    "doctor": "Say what this machine offers and what is missing.",
}
for _place, (_name, _help) in enumerate(COMMANDS.items()):
    app.command(f"saelab.cli.{_name}:app", name=_name, help=_help, sort_key=_place)

DIVIDED = ("harvest", "train", "evaluate", "index")
"""Commands that several processes of one job (`torchrun`) share; of all others each process would do the whole."""
