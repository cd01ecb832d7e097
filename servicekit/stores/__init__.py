"""Connections to PostgreSQL and Redis, and what every service does with them. Imports neither grpc nor protobuf."""
