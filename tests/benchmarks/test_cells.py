"""Every dictionary of the evidence has settings that are accepted, and a directory of its own."""

import pytest

from benchmarks.cells import AUXILIARIES, Cell, grid, readings
from saelab.config import load_config
from saelab.training.config import TrainConfig


@pytest.mark.parametrize("cell", [*grid(), *readings()], ids=lambda cell: cell.name)
def test_settings_are_accepted_and_say_what_the_cell_says(cell: Cell) -> None:
    sae = load_config(TrainConfig, None, {"sae.d_sae": 64, "sae.k": 4, **cell.overrides}).sae
    assert sae.aux.kind == cell.aux
    preset, _, allocation = cell.architecture.partition(" × ")
    assert sae.architecture in (preset, f"{preset} × {allocation}")
    assert not allocation or sae.allocation.kind == allocation


def test_the_grid_is_whole() -> None:
    cells = grid()
    assert len(cells) == 6 * len(AUXILIARIES) + 4
    names = [cell.name for cell in (*cells, *readings())]
    assert len(set(names)) == len(names)


def test_readings_differ_from_the_cell_they_are_held_against() -> None:
    for cell in readings():
        (default,) = [g for g in grid() if (g.architecture, g.aux) == (cell.architecture, cell.aux)]
        ours, theirs = (
            load_config(TrainConfig, None, {"sae.d_sae": 64, "sae.k": 4, **c.overrides}) for c in (cell, default)
        )
        assert ours != theirs
