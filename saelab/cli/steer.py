"""`saelab steer`: generate text with latents turned up or down, beside the model as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from saelab.cli.arguments import Word, parse
from saelab.cli.settings import epilogue
from saelab.errors import UserError

if TYPE_CHECKING:
    from saelab.steering.config import SteerConfig
    from saelab.steering.steer import SteeredText

app = App(
    name="steer",
    usage="Usage: saelab steer [RUN] [SETTINGS.json] [--key value ...]",
    help_epilogue=epilogue(
        "steer",
        """  saelab steer runs/a --latent 123 --strength 2 --prompt "I went to the"
  saelab steer runs/a --latent 123 --strength 0.5 --strength 1 --strength 2
  saelab steer runs/a --latent 123 --mode zero --positions=-1:
  saelab steer steering.json --seed 7           settings saved by the app

Strengths count the latent's largest activation (from the feature index, else
measured): 1 is as strong as it ever was there. A negative strength takes away
what is there or, with --method direction, pushes the other way.""",
        useful=("mode", "method", "max_new_tokens", "samples", "temperature", "seed"),
    ),
)

Quiet = Parameter(show_default=False, negative=())


@app.default
def steer(
    *words: Word,
    latent: Annotated[list[int] | None, Quiet] = None,
    strength: Annotated[list[float] | None, Quiet] = None,
    ratio: Annotated[list[float] | None, Quiet] = None,
    prompt: Annotated[str | None, Quiet] = None,
    positions: Annotated[str | None, Parameter(show_default=False, allow_leading_hyphen=True)] = None,
) -> None:
    """Continue a prompt under edits of latents.

    Parameters
    ----------
    latent
        Number of the latent; give it again for more latents, edited together.
    strength
        How much; left out, 1, 2 and 4; give it again to compare several.
    ratio
        Factor on the strength, once for each latent; left out, 1.
    prompt
        Text to continue.
    positions
        Tokens to edit: all; 5: from 5 on; 5 alone; -1: from the prompt's last on.
    """
    # Lists, and text that YAML would read as something else, are words of their own.
    given = {"latent": latent, "strength": strength, "ratio": ratio, "prompt": prompt, "positions": positions}
    config = _config(words, {key: value for key, value in given.items() if value is not None})

    from saelab.steering.steer import steer as write

    _show(config, write(config))


def _config(words: tuple[str, ...], given: dict[str, object]) -> SteerConfig:
    from saelab.config import build, said_in
    from saelab.steering.config import SteerConfig

    arguments = parse(words, takes_runs=True)
    if len(arguments.runs) > 1:
        raise UserError(f"{arguments.runs[1]!r} is one word too many: give one run or dictionary folder")
    run = {"run": arguments.runs[0]} if arguments.runs else {}
    where = said_in(arguments.file) if arguments.file else "saelab steer"
    return build(SteerConfig, arguments.values() | run | given, where)


def _show(config: SteerConfig, texts: list[SteeredText]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for text in texts:
        strength = "" if text.strength is None else f" {text.strength:g}"
        seed = f" · seed {text.seed}" if config.samples > 1 else ""
        console.print(Text(f"── {f'{config.mode}{strength}' if text.edited else 'as it is'}{seed}", style="bold cyan"))
        console.print(Text.assemble((config.prompt, "dim"), text.text))
        console.print()
