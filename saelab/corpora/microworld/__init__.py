"""The microworld: unlimited short English text from a seed, with token-level ground truth."""

from saelab.corpora.microworld.generator import Microworld
from saelab.corpora.microworld.labels import LABELS

__all__ = ["LABELS", "Microworld"]
