"""The house rules that can be read off the source: imports only go down, and one door to the language model."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import saelab

PACKAGE = Path(saelab.__file__).parent
FLOORS = [
    {"config", "disk", "errors", "lazy", "progress", "ranks"},
    {"kernels"},
    {"dictionaries", "models", "corpora"},
    {"activations"},
    {"training"},
    {"evaluation", "features", "steering"},
    {"hub"},
    {"cli", "__main__"},
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
FILES = sorted(
    path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py" and "_bundle" not in path.parts
)


def imports(file: Path) -> Iterator[tuple[str, bool]]:
    """Modules that a file imports anywhere, and whether only pyright sees it."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            unseen = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            if isinstance(child, ast.Import):
                yield from ((alias.name, unseen) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{file}: relative import"
                yield child.module or "", unseen


def component(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_only_go_down(file: Path) -> None:
    for module, unseen in imports(file):
        top, _, rest = module.partition(".")
        if top == "saelab" and rest and not unseen:
            assert FLOOR[rest.partition(".")[0]] <= FLOOR[component(file)], (
                f"{file} imports {module}, which is above it"
            )


def test_every_component_has_its_floor() -> None:
    assert {component(file) for file in FILES} == FLOOR.keys()


def test_only_models_imports_transformer_lens() -> None:
    doors = {component(file) for file in FILES for module, _ in imports(file) if module.startswith("transformer_lens")}
    assert doors == {"models"}


def test_nothing_is_pickled() -> None:
    picklers = {"pickle", "cloudpickle", "dill", "joblib", "shelve"}
    assert not [str(file) for file in FILES for module, _ in imports(file) if module.partition(".")[0] in picklers]
