"""The benchmark. docs/performance.md explains the method, and what each command answers.

- `python -m bench` measures the cost of a call and compares it with the cost of a service that does nothing (`bench.floor`), in a closed or an open
  loop. It runs a stack with one replica of each service and one Envoy worker.
- `python -m bench.rivals` measures other systems and this one in turns, with the other systems' own benchmark.
- `python -m bench.compare` compares two checkouts.

The load generator is a separate process (`bench.load`). Every target gets the same client: asyncio protocols that write prebuilt HTTP/2 or HTTP/1.1
bytes and count answers (`bench.load_grpc`, `bench.load_http`).
"""
