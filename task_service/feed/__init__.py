"""The change log as clients follow it: snapshots, resume tokens, streams."""
