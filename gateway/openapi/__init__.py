"""The OpenAPI description of the REST API, generated from the descriptor set. It must not contain the name of any RPC, path or message.

So an ordinary new RPC changes nothing here: its paths, schemas, bounds, errors and texts come from the protos.
"""
