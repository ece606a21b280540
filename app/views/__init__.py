"""One module a page; each has a `show()` that `routes.py` lists. (Streamlit runs a folder called `pages` by itself.)"""
