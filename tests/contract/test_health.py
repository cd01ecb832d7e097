"""grpc.health.v1 through the gateway answers for every service that the gateway routes, without a token."""

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.descriptors import rpcs

SERVICES = sorted({rpc.name.rpartition(".")[0] for rpc in rpcs() if not rpc.is_internal})
INTERNAL = sorted({rpc.name.rpartition(".")[0] for rpc in rpcs()} - set(SERVICES))


@pytest.mark.parametrize("service", ["", *SERVICES])
async def test_every_service_is_serving(gateway_channel: grpc.aio.Channel, service: str) -> None:
    answer = await health_pb2_grpc.HealthStub(gateway_channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("service", [*INTERNAL, "nothing"])
async def test_another_name_is_not_found(gateway_channel: grpc.aio.Channel, service: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await health_pb2_grpc.HealthStub(gateway_channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
    assert error.value.code() == grpc.StatusCode.NOT_FOUND


async def test_watching_is_for_the_gateway_alone(gateway_channel: grpc.aio.Channel) -> None:
    """A watch of the health would be a stream without a token."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        async for _ in health_pb2_grpc.HealthStub(gateway_channel).Watch(health_pb2.HealthCheckRequest(), timeout=5):
            pass
    assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED
