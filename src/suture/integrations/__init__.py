"""Bridges to other people's tools, each usable alone."""
