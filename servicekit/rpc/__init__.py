"""The path of a call: from the gRPC server through the pipeline to a handler, and back."""
