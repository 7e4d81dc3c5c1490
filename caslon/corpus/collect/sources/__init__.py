"""Collectors: one file for each kind of place texts come from."""
