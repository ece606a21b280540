"""Settings read from the source of their config classes, without importing them.

Importing a stage's settings costs pydantic and the modules around them, several times what help may take (0.3 s
with everything). The sources say the same: `key: type = default` and the docstring below it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
ROOT_CLASSES = {"Config", "BaseModel"}


@dataclass(frozen=True)
class Setting:
    """One key as a person types it: `sae.k`, its default as source text ("" = required) and its help."""

    key: str
    type: str
    default: str
    help: str


@dataclass(frozen=True)
class _Class:
    module: _Module
    node: ast.ClassDef


@dataclass(frozen=True)
class _Module:
    name: str
    classes: dict[str, ast.ClassDef]
    imports: dict[str, tuple[str, str]]  # local name → (module, name there)
    constants: dict[str, str]
    aliases: dict[str, ast.expr]  # `Kind = Literal[...]`


def settings_of(path: str) -> list[Setting]:
    """All settings of a config class given as "saelab.training.config:TrainConfig", nested ones with dotted keys."""
    module, _, name = path.partition(":")
    found = _find(module, name)
    if found is None:
        raise LookupError(f"no class {name} in {module}")
    return list(_settings(found, "", {}))


def _settings(cls: _Class, prefix: str, given: dict[str, str]) -> Iterator[Setting]:
    for base in cls.node.bases:
        if isinstance(base, ast.Name) and base.id not in ROOT_CLASSES:
            parent = _find(cls.module.name, base.id)
            if parent is not None:
                yield from _settings(parent, prefix, given)
    body = cls.node.body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        key = node.target.id
        if key.startswith("_") or key == "model_config":
            continue
        default = given.get(key, _default(cls.module, node.value))
        inner = _nested(cls.module, node.annotation)
        if inner and default == "None":  # a whole section that is left out unless one of its keys is given
            yield Setting(prefix + key, _type(cls.module, node.annotation), default, _docstring(after))
        elif len(inner) > 1:
            yield from _choice(inner, f"{prefix}{key}.", node.value)
        elif inner:
            yield from _settings(inner[0], f"{prefix}{key}.", _keywords(cls.module, node.value))
        else:
            yield Setting(prefix + key, _type(cls.module, node.annotation), default, _docstring(after))


def _choice(members: list[_Class], prefix: str, value: ast.expr | None) -> Iterator[Setting]:
    """A union of config classes told apart by `kind`: the kind, then what each kind adds."""
    settings = {member.node.name: list(_settings(member, prefix, {})) for member in members}
    kinds = {
        name: next(s.default.strip("'") for s in own if s.key == f"{prefix}kind") for name, own in settings.items()
    }
    chosen = value.func.id if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) else ""
    yield Setting(f"{prefix}kind", " | ".join(kinds.values()), kinds.get(chosen, ""), "")
    for name, own in settings.items():
        yield from (replace(s, help=f"{kinds[name]}: {s.help}") for s in own if s.key != f"{prefix}kind")


def _nested(module: _Module, annotation: ast.expr) -> list[_Class]:
    """Config classes named in an annotation, aliases followed."""
    found: list[_Class] = []
    names = [node for node in ast.walk(annotation) if isinstance(node, ast.Name)]
    for name in sorted(names, key=lambda n: (n.lineno, n.col_offset)):
        alias = _alias(module.name, name.id)
        if alias is not None:
            found += _nested(*alias)
        else:
            cls = _find(module.name, name.id)
            if cls is not None and _is_config(cls):
                found.append(cls)
    return found


def _is_config(cls: _Class) -> bool:
    for base in cls.node.bases:
        if isinstance(base, ast.Name):
            if base.id in ROOT_CLASSES:
                return True
            parent = _find(cls.module.name, base.id)
            if parent is not None and _is_config(parent):
                return True
    return False


def _type(module: _Module, annotation: ast.expr) -> str:
    alias = _alias(module.name, annotation.id) if isinstance(annotation, ast.Name) else None
    if alias is not None:
        return _type(*alias)
    if isinstance(annotation, ast.Subscript) and isinstance(annotation.value, ast.Name):
        if annotation.value.id == "Literal":
            choices = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
            return " | ".join(str(ast.literal_eval(choice)) for choice in choices)
        if annotation.value.id == "Annotated" and isinstance(annotation.slice, ast.Tuple):
            return _type(module, annotation.slice.elts[0])
    return ast.unparse(annotation)


def _default(module: _Module, value: ast.expr | None) -> str:
    if value is None:
        return ""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "Field":
        keywords = {k.arg: k.value for k in value.keywords}
        inner = keywords.get("default") or (value.args[0] if value.args else None)
        return _default(module, inner)
    if isinstance(value, ast.Name) and value.id in module.constants:
        return module.constants[value.id]
    return "" if isinstance(value, ast.Constant) and value.value is ... else ast.unparse(value)


def _keywords(module: _Module, value: ast.expr | None) -> dict[str, str]:
    """What a nested default sets itself: `TokenPolicy(context=128)` → {"context": "128"}."""
    if not isinstance(value, ast.Call):
        return {}
    return {k.arg: _default(module, k.value) for k in value.keywords if k.arg}


def _docstring(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return " ".join(node.value.value.split())
    return ""


@cache
def _find(module: str, name: str) -> _Class | None:
    """The class called `name` where `module` defines it or imports it from (inside saelab)."""
    source = _parse(module)
    if source is None:
        return None
    if name in source.classes:
        return _Class(source, source.classes[name])
    return _find(*source.imports[name]) if name in source.imports else None


@cache
def _alias(module: str, name: str) -> tuple[_Module, ast.expr] | None:
    """What a name like `Kind = Literal[...]` stands for, and the module it is written in."""
    source = _parse(module)
    if source is None:
        return None
    if name in source.aliases:
        return source, source.aliases[name]
    return _alias(*source.imports[name]) if name in source.imports else None


@cache
def _parse(module: str) -> _Module | None:
    package, *parts = module.split(".")
    base = PACKAGE.joinpath(*parts)
    file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    if package != PACKAGE.name or not file.is_file():
        return None
    parsed = _Module(module, {}, {}, {}, {})
    for node in _statements(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.ClassDef():
                parsed.classes[node.name] = node
            case ast.ImportFrom(module=str(source)) if node.level == 0:
                parsed.imports.update({a.asname or a.name: (source, a.name) for a in node.names})
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant()):
                parsed.constants[name] = ast.unparse(node.value)
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Subscript() | ast.BinOp()):
                parsed.aliases[name] = node.value
    return parsed


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """Top-level statements, those under `if TYPE_CHECKING:` included (where lazy packages name what they export)."""
    for node in tree.body:
        yield node
        if isinstance(node, ast.If):
            yield from node.body
