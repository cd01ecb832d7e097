"""Bugs that are planted on purpose, each to show that a test finds it: `python -m tests.planted [NAME …]`."""
