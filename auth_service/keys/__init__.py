"""The keys that sign access tokens: storage, rotation, publication."""
