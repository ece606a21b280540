"""Entry of the app: what is open, which pages there are, and what happens when a page can't be shown.

Run by Streamlit on every interaction, so it stays short; everything it calls lives in modules that are loaded once.
To add a page: a folder with a `page.py` that has a `show()`, and one line in app/routes.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))  # so that `app` is a package wherever the folder was installed

from app import collector, frame, routes

frame.show(routes.routes())
collector.settle()
