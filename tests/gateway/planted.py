"""A descriptor set with RPCs that the gateway does not know, to show that it derives its tables from the descriptors."""

from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from taskmanager.rpc.v1 import access_pb2

SERVICE = "taskmanager.task.v1.PlantedService"


def planted(descriptors: bytes) -> bytes:
    """Adds a service with a creating, a public, an internal and a streaming method to the descriptor set."""
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptors)
    file = files.file.add(name="taskmanager/task/v1/planted.proto", package="taskmanager.task.v1", syntax="proto3")
    file.dependency.extend(
        [
            "taskmanager/task/v1/task.proto",
            "taskmanager/task/v1/task_service.proto",
            "taskmanager/rpc/v1/access.proto",
            "google/api/annotations.proto",
        ]
    )
    service = file.service.add(name="PlantedService")
    _method(service, "CreateThing", access_pb2.ACCESS_AUTHENTICATED, post="/api/v1/things")
    _method(
        service, "FindThing", access_pb2.ACCESS_PUBLIC, get="/api/v1/things/{id}"
    ).options.idempotency_level = descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS
    _method(service, "PurgeThings", access_pb2.ACCESS_INTERNAL, post="/api/v1/things:purge")
    watch = _method(service, "WatchThings", access_pb2.ACCESS_AUTHENTICATED, get="/api/v1/things:watch")
    watch.server_streaming = True
    watch.options.idempotency_level = descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS
    return files.SerializeToString()


def _method(service: descriptor_pb2.ServiceDescriptorProto, name: str, access: int, **rule: str) -> descriptor_pb2.MethodDescriptorProto:
    method = service.method.add(name=name, input_type=".taskmanager.task.v1.GetTaskRequest", output_type=".taskmanager.task.v1.Task")
    method.options.Extensions[access_pb2.access] = access
    http = method.options.Extensions[annotations_pb2.http]
    for verb, path in rule.items():
        setattr(http, verb, path)
    if "post" in rule:
        http.body = "*"
    return method
