"""The help reads sources; these tests hold it against what pydantic says about the same classes."""

import importlib
from typing import get_args

import pytest
from pydantic import BaseModel

from saelab.cli.settings import STAGES, epilogue, settings
from saelab.cli.source import Setting, settings_of
from saelab.errors import UserError

DICTIONARY = "saelab.dictionaries.config:DictionaryConfig"


def by_key(path: str) -> dict[str, Setting]:
    return {setting.key: setting for setting in settings_of(path)}


def pydantic_keys(cls: type[BaseModel], prefix: str = "") -> set[str]:
    """Dotted keys by importing the class; an optional section is one key, as in the help."""
    keys: set[str] = set()
    for name, field in cls.model_fields.items():
        parts = [field.annotation, *get_args(field.annotation)]
        inner = [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]
        if inner and field.default is not None:
            keys |= {key for member in inner for key in pydantic_keys(member, f"{prefix}{name}.")}
        else:
            keys.add(prefix + name)
    return keys


@pytest.mark.parametrize("path", [*STAGES.values(), DICTIONARY])
def test_the_source_says_what_pydantic_says(path: str) -> None:
    module, _, name = path.partition(":")
    cls = getattr(importlib.import_module(module), name)
    assert by_key(path).keys() == pydantic_keys(cls)
    for key, field in cls.model_fields.items():
        if key in by_key(path):
            assert (by_key(path)[key].default == "") == field.is_required()
            assert by_key(path)[key].help == " ".join((field.description or "").split())


def test_a_default_and_its_docstring_are_read() -> None:
    setting = by_key("saelab.features.config:IndexConfig")["top_examples"]
    assert setting.default == "20"
    assert setting.help.startswith("examples with the largest activations")


def test_a_union_shows_its_kinds_and_what_each_adds() -> None:
    found = by_key(DICTIONARY)
    assert found["allocation.kind"].type == "token | mutual | feature | relu | jumprelu | gated | group"
    assert found["allocation.shift"].help.startswith("feature: ")
    assert found["affinity.beta"].default == "1.0"


def test_constants_are_shown_by_value() -> None:
    assert by_key("saelab.corpora.config:CorpusConfig")["source"].default == "'microworld'"


def test_unknown_classes_are_an_error() -> None:
    with pytest.raises(LookupError, match="no class Nope"):
        settings_of("saelab.config:Nope")


def test_the_help_of_a_stage_names_every_setting() -> None:
    text = epilogue("train", "", useful=["sae.k"])
    assert all(key.rpartition(".")[2] in text for key in by_key(STAGES["train"]))


def test_one_section_is_explained_alone(capsys) -> None:
    settings("train", "sae")
    keys = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  sae")]
    assert "sae.d_sae" in keys
    assert all(key.startswith("sae.") for key in keys)


@pytest.mark.parametrize(("stage", "section"), [("trian", ""), ("train", "sea")])
def test_unknown_stages_and_sections_are_refused(stage: str, section: str) -> None:
    with pytest.raises(UserError):
        settings(stage, section)
