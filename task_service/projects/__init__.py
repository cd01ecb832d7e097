"""Projects: the domain values, the use cases, and the storage."""
