"""Python's garbage collector, kept away from what stays anyway.

After every run of a page Streamlit has it look at every object there is, and the answer waits meanwhile: 0.06 s, and
0.2 s once torch is loaded. What modules define stays until the server ends, so it need not be looked at again.
"""

from __future__ import annotations

import gc
import sys

FEW = 20  # modules that may have come without being worth a collection
_known = 0  # modules at the last one


def settle() -> None:
    """Where modules have been imported since the last call: collect once more, and leave what remains out for good."""
    global _known
    if len(sys.modules) > _known + FEW:
        _known = len(sys.modules)
        gc.collect()
        gc.freeze()
