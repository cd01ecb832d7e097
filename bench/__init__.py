"""What a call costs, beside what it would cost if the services did nothing: `python -m bench`.

The figures come from an ephemeral stack with one replica of each service and one Envoy worker. Each row of ours has a floor in the same run: a
grpc.aio server on uvloop whose handler takes bytes and returns bytes of the same sizes (`bench.floor`), reached the same way: straight; over gRPC
through an Envoy that only routes; over REST through an Envoy with the gateway's own configuration, every filter of it. Short rounds of floor and
service alternate, and every other cycle runs backwards, so that a machine that gets slower or busier meanwhile does so for both.

Which figure to believe: **CPU per call**. The load generator, Postgres and Valkey run on the same machine; on few cores they take turns with what is
measured, and calls per second and latency then tell of the machine as much as of the service. CPU per call is what a pod is sized by, and hardly
moves with the load beside it. Calls per second compare a row with its floor, and with the same row on the same idle machine, and no further.

What a call costs depends on how many there are: grpc.aio spares wake-ups when several wait for it. The floor of one caller costs over twice that of
32 (`--callers 1`), so a ratio holds for its number of callers and for no other.

The load: a closed loop of concurrent callers, from a process of its own, with one client for service and floor: asyncio protocols that write
prebuilt HTTP/2 or HTTP/1.1 bytes and count answers (`bench.load_grpc`, `bench.load_http`), at about a tenth of what a grpc.aio client takes per call.
Its CPU is reported too: a row whose client had a whole core to itself is marked, since then the client was the limit.
"""
