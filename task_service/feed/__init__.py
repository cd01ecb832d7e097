"""The change feed: how clients follow a user's change log, with snapshots, resume tokens and streams."""
