"""Measures the cost of a call and compares it with the cost of a service that does nothing: `python -m bench`.

The benchmark runs a stack with one replica of each service and one Envoy worker. Each row has a floor in the same run: a grpc.aio server on uvloop
whose handler takes bytes and returns bytes of the same sizes (`bench.floor`). The client reaches the floor in the same way as the service: directly;
over gRPC through an Envoy that only routes; over REST through an Envoy with the gateway's complete configuration. Short rounds of floor and service
alternate, and every other cycle runs in reverse order. So if the machine becomes slower during the run, both are affected equally.

The figure to trust is **CPU per call**. The load generator, PostgreSQL and Valkey run on the same machine. With few cores they compete with the
measured service, so calls per second and latency depend on the machine as much as on the service. CPU per call determines the size of a pod and
hardly depends on other load. Use calls per second only to compare a row with its floor, or with the same row on the same idle machine.

The cost of a call depends on the number of concurrent calls, because grpc.aio saves wake-ups when several calls are waiting. With one caller
(`--callers 1`) a call of the floor costs more than twice as much as with 32 callers. So a ratio is valid only for its number of callers.

The load is a closed loop of concurrent callers in a separate process. Service and floor get the same client: asyncio protocols that write prebuilt
HTTP/2 or HTTP/1.1 bytes and count answers (`bench.load_grpc`, `bench.load_http`). It needs about a tenth of the CPU of a grpc.aio client. The report
also shows the client's CPU. It marks a row if the client used a whole core, because then the client may have been the limit.
"""
