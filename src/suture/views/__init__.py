"""Figures, tables and HTML of results; the page, notebooks and the terminal share them."""
