"""Reflection on the running services, in both versions, with raw calls."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import grpc.aio
import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2
from prometheus_client import CollectorRegistry

from servicekit.rpc.health import Health
from servicekit.rpc.reflection import MAX_STREAMS, V1
from servicekit.rpc.server import GrpcServer
from tests.servicekit.rpc.serving import TASKS, server_options
from tests.support.waiting import eventually

AUTH = {"taskmanager.auth.v1.AuthService", "taskmanager.auth.v1.UserService", "taskmanager.auth.v1.ApiTokenService"}
TASK = {"taskmanager.task.v1.TaskService", "taskmanager.task.v1.ProjectService", "taskmanager.task.v1.WebhookService"}
VERSIONS = ("v1", "v1alpha")

both_versions = pytest.mark.parametrize("version", VERSIONS)


async def ask(
    channel: grpc.aio.Channel, version: str, *requests: reflection_pb2.ServerReflectionRequest
) -> list[reflection_pb2.ServerReflectionResponse]:
    """Returns the answers. The messages of the two versions are the same on the wire."""

    async def sent() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        for request in requests:
            yield request

    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    return [answer async for answer in call(sent(), timeout=5)]


async def listed(channel: grpc.aio.Channel, version: str) -> set[str]:
    (answer,) = await ask(channel, version, reflection_pb2.ServerReflectionRequest(list_services="*"))
    return {service.name for service in answer.list_services_response.service}


@both_versions
async def test_the_services_are_listed(version: str, auth_channel: grpc.aio.Channel, task_channel: grpc.aio.Channel) -> None:
    assert await listed(auth_channel, version) >= AUTH
    # The gateway routes reflection to task_service only, so task_service lists the services of both.
    assert await listed(task_channel, version) >= AUTH | TASK


@both_versions
async def test_the_gateway_lists_every_public_service(version: str, gateway_channel: grpc.aio.Channel) -> None:
    found = {name for name in await listed(gateway_channel, version) if name.startswith("taskmanager.")}
    assert found == AUTH | TASK


@both_versions
@pytest.mark.parametrize(
    "symbol",
    [
        *("taskmanager.task.v1.TaskService.CreateTask", "taskmanager.auth.v1.AuthService.Login", "grpc.health.v1.Health.Check"),
        *("taskmanager.task.v1.Task", "taskmanager.task.v1.Task.Status", "taskmanager.task.v1.Task.title", "taskmanager.rpc.v1.access"),
    ],
)
async def test_a_symbol_of_a_service_is_described(version: str, symbol: str, gateway_channel: grpc.aio.Channel) -> None:
    """`grpcurl describe` asks for a method by its name."""
    (answer,) = await ask(gateway_channel, version, reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol))
    assert answer.WhichOneof("message_response") == "file_descriptor_response"


@both_versions
@pytest.mark.parametrize(
    "symbol", ["taskmanager.auth.v1.EventService", "taskmanager.auth.v1.EventService.ListEvents", "taskmanager.task.v1.TaskService.No", "No"]
)
async def test_what_is_not_public_is_not_described(version: str, symbol: str, auth_channel: grpc.aio.Channel, task_channel: grpc.aio.Channel) -> None:
    for channel in (auth_channel, task_channel):
        requests = [
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol),
            reflection_pb2.ServerReflectionRequest(file_by_filename="taskmanager/auth/v1/event_service.proto"),
        ]
        for answer in await ask(channel, version, *requests):
            assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
        assert not [name for name in await listed(channel, version) if "EventService" in name]


@both_versions
async def test_a_service_is_described(version: str, task_channel: grpc.aio.Channel) -> None:
    # All listed services, not only our own, because clients ask for each of them.
    for name in await listed(task_channel, version):
        (answer,) = await ask(task_channel, version, reflection_pb2.ServerReflectionRequest(file_containing_symbol=name))
        files = [descriptor_pb2.FileDescriptorProto.FromString(data) for data in answer.file_descriptor_response.file_descriptor_proto]
        assert name in {f"{file.package}.{service.name}" for file in files for service in file.service}


@both_versions
async def test_what_is_not_there_is_not_found(version: str, task_channel: grpc.aio.Channel) -> None:
    (answer,) = await ask(task_channel, version, reflection_pb2.ServerReflectionRequest(file_containing_symbol="no.such.Thing"))
    assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


async def test_streams_beyond_the_limit_are_rejected_until_another_ends() -> None:
    server = GrpcServer(replace(server_options(), reflected_services=(TASKS.full_name,)), Health([], {}, CollectorRegistry()), ())
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        open_ = [channel.stream_stream(f"/{V1}/ServerReflectionInfo")() for _ in range(MAX_STREAMS)]
        for each in open_:
            await each.write(reflection_pb2.ServerReflectionRequest(list_services="*").SerializeToString())
            await each.read()
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await listed(channel, "v1alpha")
        assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        open_[0].cancel()

        async def accepted() -> None:
            with contextlib.suppress(grpc.aio.AioRpcError):
                assert TASKS.full_name in await listed(channel, "v1")
                return
            raise AssertionError

        await eventually(accepted, within=5)
    await server.stop(0)
