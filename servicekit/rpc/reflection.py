"""gRPC server reflection, v1 and v1alpha. The two differ only in the name of the package, so one servicer serves both."""

from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

V1: Final = "grpc.reflection.v1.ServerReflection"
V1ALPHA: Final = "grpc.reflection.v1alpha.ServerReflection"


def add_reflection(server: grpc.aio.Server, services: tuple[str, ...]) -> None:
    """Lets clients such as grpcurl read the descriptors of `services` from the server. The descriptors must have been imported."""
    descriptor_pool.Default().Add(_described_as_v1())
    servicer = ReflectionServicer((*services, V1, V1ALPHA))
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo, request_deserializer=reflection_pb2.ServerReflectionRequest.FromString, response_serializer=_serialize
    )
    for name in (V1, V1ALPHA):
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method}),))


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
