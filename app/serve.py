"""Start the app's server: `python app/serve.py [streamlit options] -- FOLDER...`.

The libraries that pages need are loaded before the server says that it is healthy, not while the first visitor waits.
"""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb  # noqa: F401
import numpy  # noqa: F401
import plotly.graph_objects  # noqa: F401
import pyarrow  # noqa: F401
from streamlit.web.cli import main

if __name__ == "__main__":
    sys.argv = ["streamlit", "run", str(Path(__file__).with_name("main.py")), *sys.argv[1:]]
    main()
