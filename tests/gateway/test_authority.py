"""The gateway calls a service by the host name in its settings, not by the name that the client used. A service mesh routes by this name."""

from typing import Any

import grpc
import yaml

from tests.gateway.stack import GET_TASK, Gateway, Stack, gateway_behind


def _record(stack: Stack, names: list[str]) -> None:
    def behave(_: Any, context: grpc.ServicerContext) -> Any:
        # grpc's server keeps :authority only here.
        names.append(context._rpc_event.call_details.host.decode())
        return stack.messages.response(GET_TASK)()

    stack.behave(GET_TASK, behave)


def test_the_services_are_called_by_their_own_name(stack: Stack) -> None:
    names: list[str] = []
    _record(stack, names)
    with gateway_behind(stack, task_grpc_endpoints=f"localhost:{stack.tasks[0].port}") as gateway:
        gateway.request("GET", "/api/v1/tasks/1", headers={"host": "api.example.com"})
        gateway.call(GET_TASK)
    assert names == ["localhost", "localhost"]


def test_their_health_is_asked_by_that_name_too(gateway: Gateway) -> None:
    config = yaml.safe_load(next(gateway.log.parent.glob(f"envoy-{gateway.settings.gateway_port}.yaml")).read_text())
    for cluster in config["static_resources"]["clusters"]:
        for group in cluster["load_assignment"]["endpoints"]:
            for host in (each["endpoint"] for each in group["lb_endpoints"]):
                if cluster["name"] != "admin":
                    assert host["health_check_config"]["hostname"] == host["address"]["socket_address"]["address"]
