"""`saelab steer`: generate text with latents turned up or down, beside the model as it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

if TYPE_CHECKING:
    from saelab.steering.steer import SteeredText

app = App(
    name="steer",
    default_parameter=Parameter(negative=(), show_default=True, show_choices=False),
    help_epilogue="""Examples:
  saelab steer runs/a --latent 123 --strength 2 --prompt "I went to the"
  saelab steer runs/a --latent 123 --strength 0.5 --strength 1 --strength 2
  saelab steer runs/a --latent 123 --mode zero

Strengths count the latent's largest activation (from the feature index, else
measured): 1 is as strong as it ever was there. A negative strength takes away
what is there or, with --method direction, pushes the other way.""",
)

Quiet = Parameter(show_default=False)


@app.default
def steer(
    run: Path,
    *,
    latent: Annotated[list[int], Quiet],
    strength: Annotated[list[float] | None, Quiet] = None,
    prompt: str = "Once upon a time",
    mode: Literal["add", "scale", "clamp", "zero"] = "add",
    method: Literal["difference", "direction"] = "difference",
    tokens: int = 40,
    temperature: float = 0.8,
    top_k: Annotated[int | None, Quiet] = None,
    top_p: Annotated[float | None, Quiet] = None,
    seed: int = 0,
    model: Annotated[str | None, Quiet] = None,
    device: str = "auto",
) -> None:
    """Continue a prompt under edits of latents.

    Parameters
    ----------
    run
        Run or dictionary directory.
    latent
        Number of the latent; give it again for more latents, edited together.
    strength
        How much; left out, 1, 2 and 4; give it again to compare several.
    prompt
        Text to continue.
    mode
        add: f + strength · unit; clamp: strength · unit; scale: f · strength; zero: off.
    method
        difference: edit codes, keep the rest of the activation; direction: add the decoder row everywhere.
    tokens
        Tokens to write.
    temperature
        0 takes the likeliest token every time.
    top_k
        Draw from the so many likeliest tokens only.
    top_p
        Draw from the fewest likeliest tokens that together have this probability.
    seed
        Seed of the draw, the same for every strength.
    model
        Name or folder; left out, the model that the dictionary names.
    device
        cpu, cuda, cuda:1, mps.
    """
    from saelab.config import build
    from saelab.steering.config import SteerConfig

    settings = {
        "run": run, "latent": latent, "prompt": prompt, "mode": mode, "method": method, "max_new_tokens": tokens,
        "temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed, "model": model, "device": device,
    }  # fmt: skip
    config = build(SteerConfig, settings if strength is None else settings | {"strength": strength}, "saelab steer")

    from saelab.steering.steer import steer as write

    _show(config.prompt, config.mode, write(config))


def _show(prompt: str, mode: str, texts: list[SteeredText]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for text in texts:
        strength = "" if text.strength is None else f" {text.strength:g}"
        console.print(Text(f"── {f'{mode}{strength}' if text.edited else 'as it is'}", style="bold cyan"))
        console.print(Text.assemble((prompt, "dim"), text.text))
        console.print()
