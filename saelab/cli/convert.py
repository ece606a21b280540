"""`saelab convert`: a dictionary from one tool's format into another's, checked on the way."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

app = App(
    name="convert",
    usage="Usage: saelab convert SRC DST [--to FORMAT] [--site SITE] [--target SITE] [--model MODEL]",
    help_epilogue="""Formats:
  saelab               a run folder, which evaluate, index and browse take
  saelens              SAELens 6: cfg.json, sae_weights.safetensors
  sparsify             cfg.json, sae.safetensors; topk only
  dictionary-learning  config.json, ae.pt
  gemma-scope, gemma-scope-2, circuit-tracer    read only

What SRC is in, its files say. Scales are folded into the weights; what a format can't express is refused.

Examples:
  saelab convert downloads/sae runs/theirs              into a run folder
  saelab evaluate runs/theirs --corpus.source FILE.txt  and measured
  saelab convert runs/mine out/mine --to saelens        for SAELens
  saelab convert old runs/old --model gpt2 --site blocks.4.resid_post   (where files are silent)""",
)


@app.default
def convert(src: Path, dst: Path, *, to: str = "saelab", site: str = "", target: str = "", model: str = "") -> None:
    """Carry a dictionary into another tool's format, or out of one, and compare what it computes.

    Parameters
    ----------
    src
        Folder of a dictionary, in any of the formats.
    dst
        Folder to make.
    to
        Format to write.
    site
        Where the dictionary reads (blocks.8.resid_pre), if its files do not say.
    target
        Where it writes, if it is a transcoder and its files do not say.
    model
        The language model's name or folder, if the files do not say.
    """
    from saelab.disk import RunPaths
    from saelab.hub.formats import named
    from saelab.hub.formats.convert import convert as carry

    form = named(to)
    place = RunPaths(dst).dictionary if form.name == "saelab" else dst
    done = carry(src, place, form, site, target, model)
    config = done.dictionary.config
    written = f" → {', '.join(config.target_sites)}" if config.targets else ""
    print(
        f"read   {src} ({done.source.name}): {config.architecture}, {config.d_in} → {config.d_sae:,} latents, "
        f"k = {config.k}, {config.site}{written} of {config.model}"
    )
    for note in done.notes:
        print(f"note   {note}")
    print(f"wrote  {place} ({form.name})")
    left_out = f"; {done.difference.undecided} more hang on rounding" if done.difference.undecided else ""
    print(
        f"check  read back, reconstructions differ by at most {done.difference.largest:.1e} (relative) on "
        f"{done.difference.inputs} random inputs{left_out}"
    )
