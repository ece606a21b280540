"""Other tools' training steps, each driven through the tool's own code.

    make peers                                    # .venv-peers: saelab beside sparsify, dictionary_learning and SAELens
    .venv-peers/bin/python benchmarks/step.py     # the comparison
    make test-peers                               # tests/peers: do they choose what we choose?

SAELens asks for transformer-lens before 4, so that it can't live in .venv; everything of saelab but its language models
has been seen to work in .venv-peers, and `saelab.models` imports there. A module of this package drives one
tool. It offers `new_trainer`, the tool's own trainer, and `build`, which returns a `Loop` around it: that trains on the
batches that it is given, one optimiser step each.
"""

from collections.abc import Callable, Iterator

from jaxtyping import Float
from torch import Tensor

Loop = Callable[[Iterator[Float[Tensor, "B d"]]], None]
