"""gRPC server reflection, v1 and v1alpha. The two differ only in the name of the package, so one servicer serves both.

It describes the listed services and nothing else that the process has imported, such as a service for the system's own services.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

from servicekit.rpc.health import NAME as HEALTH

V1: Final = "grpc.reflection.v1.ServerReflection"
V1ALPHA: Final = "grpc.reflection.v1alpha.ServerReflection"
# Streams at once. Anybody can open one through the gateway, and send it a request of the largest size.
MAX_STREAMS: Final = 8


def add_reflection(server: grpc.aio.Server, services: tuple[str, ...]) -> None:
    """Lets clients such as grpcurl read the descriptors of `services` from the server. The descriptors must have been imported."""
    pool = DescriptorPool()
    for name in (*services, HEALTH, V1ALPHA):
        _add(pool, descriptor_pool.Default().FindServiceByName(name).file)
    pool.AddSerializedFile(_described_as_v1().SerializeToString())
    servicer = _Servicer((*services, HEALTH, V1, V1ALPHA), pool)
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo, request_deserializer=reflection_pb2.ServerReflectionRequest.FromString, response_serializer=_serialize
    )
    for name in (V1, V1ALPHA):
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method}),))


class _Servicer(ReflectionServicer):  # type: ignore[misc]  # grpc_reflection has no types
    """Also finds the file of a method, which `grpcurl describe` asks for. protobuf's pool knows methods only by their services."""

    def __init__(self, services: Sequence[str], pool: DescriptorPool) -> None:
        super().__init__(services, pool)
        self._streams = 0

    async def ServerReflectionInfo(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802 - the RPC's name
        """The RPC. Rejects streams beyond MAX_STREAMS before it reads a request."""
        if self._streams >= MAX_STREAMS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Too many clients read the descriptors; try again later.")
        self._streams += 1
        context.add_done_callback(self._end)
        async for answer in super().ServerReflectionInfo(request_iterator, context):
            yield answer

    def _end(self, _: object) -> None:
        self._streams -= 1

    def _file_containing_symbol(self, request: Any, fully_qualified_name: str) -> Any:
        service, _, method = fully_qualified_name.rpartition(".")
        try:
            known = method in self._pool.FindServiceByName(service).methods_by_name
        except KeyError:
            known = False
        return super()._file_containing_symbol(request, service if known else fully_qualified_name)


def _add(pool: DescriptorPool, file: Any) -> None:
    """Adds a file to the pool, after the files that it imports."""
    for imported in file.dependencies:
        _add(pool, imported)
    # To add a file twice changes nothing.
    pool.AddSerializedFile(file.serialized_pb)


def _described_as_v1() -> descriptor_pb2.FileDescriptorProto:
    """Returns the v1 descriptor, which grpcio-reflection lacks. Clients such as `buf curl --list-methods` read it for each listed service."""
    file = descriptor_pb2.FileDescriptorProto.FromString(reflection_pb2.DESCRIPTOR.serialized_pb)
    text = text_format.MessageToString(file)
    for separator in "./":
        text = text.replace(f"reflection{separator}v1alpha", f"reflection{separator}v1")
    return text_format.Parse(text, descriptor_pb2.FileDescriptorProto())


def _serialize(response: Any) -> bytes:
    data: bytes = response.SerializeToString()
    return data
