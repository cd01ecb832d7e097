"""The process around the gRPC server: settings, commands, logs, traces, the ops HTTP server, start and stop."""
