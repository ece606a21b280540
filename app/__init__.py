"""The feature browser: a Streamlit app over runs. `serve.py` starts it, `main.py` is its entry."""
