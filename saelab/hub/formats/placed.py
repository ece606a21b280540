"""A dictionary whose files are silent about its place in a model, told its place."""

from __future__ import annotations

from dataclasses import replace

from saelab.dictionaries.config import DictionaryConfig, Target
from saelab.dictionaries.dictionary import Dictionary
from saelab.errors import UserError
from saelab.hub.formats.format import Imported
from saelab.hub.formats.parts import bias_of_centre
from saelab.hub.formats.places import known, unsaid
from saelab.models.site import UNKNOWN, Site


def placed(imported: Imported, site: str | None, target: str | None, model: str | None) -> Imported:
    """The same function at `site` of `model`, and writing to `target`; None or "" leaves what the files say.

    With `target`, a dictionary that reconstructs what it reads becomes a transcoder. Those do not centre their input,
    so that `W_enc b_dec` leaves the encoder's bias.

    Raises:
        UserError: the files say something else, or what is given is no site.
    """
    dictionary = imported.dictionary
    config = dictionary.config
    changes: dict[str, object] = {}
    if site:
        changes["site"] = _agreed("site", str(Site.parse(site)), config.site if known(config.site) else "")
    if model:
        changes["model"] = _agreed("model", model, "" if config.model == UNKNOWN else config.model)
    if target:
        dictionary = _transcoder(dictionary, str(Site.parse(target)))
        changes["targets"] = dictionary.config.targets
    dictionary = replace(dictionary, config=config.model_copy(update=changes))
    before, now = _unsaid(config), _unsaid(dictionary.config)
    return Imported(dictionary, tuple(note for note in imported.notes if note not in before or note in now))


def _transcoder(dictionary: Dictionary, target: str) -> Dictionary:
    config = dictionary.config
    if len(config.targets) > 1:
        raise UserError(f"--target {target} contradicts the files, which say {', '.join(config.target_sites)}")
    if config.targets:
        (said,) = config.targets
        there = said.model_copy(update={"site": _agreed("target", target, said.site if known(said.site) else "")})
        return replace(dictionary, config=config.model_copy(update={"targets": (there,)}))
    there = Target(site=target, width=dictionary.d_out, scale=config.scale)
    b_enc = (dictionary.b_enc.double() - bias_of_centre(dictionary.W_enc, dictionary.b_dec)).to(dictionary.b_enc)
    return replace(dictionary, b_enc=b_enc, config=config.model_copy(update={"targets": (there,)}))


def _unsaid(config: DictionaryConfig) -> list[str]:
    return unsaid(config.site, config.targets[0].site if config.targets else "", config.model)


def _agreed(what: str, given: str, said: str) -> str:
    if said and said != given:
        raise UserError(f"--{what} {given} contradicts the files, which say {said}; leave it out")
    return given
