"""Text to train on."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text file of 100 short documents."""
    from saelab.corpora.microworld import Microworld

    path = tmp_path_factory.mktemp("tiny-text") / "text.txt"
    world = Microworld(seed=2)
    path.write_text("\n<|endoftext|>\n".join(world.document(i).text for i in range(100)))
    return path
