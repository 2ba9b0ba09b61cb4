"""Measurements of the package. Nothing here is shipped."""
