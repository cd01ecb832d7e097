"""Who calls, whether the session still holds, and how often a caller may try. Imports neither grpc nor protobuf."""
