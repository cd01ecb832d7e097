"""Tasks: the domain values, the use cases, the storage, and the cache in front of it."""
