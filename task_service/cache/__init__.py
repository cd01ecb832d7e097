"""Tasks in Redis, and when the replicas may rely on them (docs/adr/0017-cache-protocol.md)."""
