"""Plotly figures built from reports, the same in the app and in HTML pages: no theme is set inside."""
