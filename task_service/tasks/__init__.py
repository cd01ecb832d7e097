"""Tasks: what they are, the use cases, their storage, and the cache in front of it."""
