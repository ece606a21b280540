"""Start the app's server: `python app/serve.py [streamlit options] -- FOLDER...`.

The pages and the libraries that they need are loaded before the server says that it is healthy, not while the first
visitor waits. The browser that shows the pages runs on the same machine, so the model leaves half of the processors to
it; OMP_NUM_THREADS says otherwise.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Before torch is loaded, which reads it once.
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // 2)))

import pandas  # noqa: F401 (pyarrow loads it for the first array that it hands over)
from streamlit.web.cli import main

sys.path.insert(0, str(Path(__file__).parents[1]))  # as in main.py

from app import routes  # noqa: F401

if __name__ == "__main__":
    sys.argv = ["streamlit", "run", str(Path(__file__).with_name("main.py")), *sys.argv[1:]]
    main()
