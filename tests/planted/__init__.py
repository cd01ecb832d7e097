"""Bugs that are planted on purpose. Each one proves that a test can find it: `python -m tests.planted [NAME …]`."""
