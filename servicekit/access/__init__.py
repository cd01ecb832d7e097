"""Verifies the caller's token, checks whether its session is revoked, and limits the caller's rate. Imports neither grpc nor protobuf."""
