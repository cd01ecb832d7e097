"""The route table comes from the descriptor set alone."""

import re

import pytest
from google.protobuf import descriptor_pb2
from taskmanager.rpc.v1 import access_pb2

from gateway.routes import DescriptorError, RestPath, RouteTable, cluster_of, read_routes
from tests.gateway.planted import SERVICE, planted
from tests.gateway.stack import DESCRIPTORS, routes


def _planted() -> RouteTable:
    return read_routes(planted(DESCRIPTORS.read_bytes()))


def test_a_new_rpc_is_routed_without_a_change_here() -> None:
    found = {rpc.name: rpc for rpc in _planted().rpcs if rpc.service == SERVICE}
    assert set(found) == {"CreateThing", "FindThing", "WatchThings"}
    assert found["CreateThing"].creates
    assert not found["CreateThing"].safe
    assert found["FindThing"].public
    assert found["FindThing"].safe
    assert not found["FindThing"].creates
    assert found["WatchThings"].streams
    assert {rpc.cluster for rpc in found.values()} == {"task_service"}


def test_an_internal_method_is_not_in_the_table() -> None:
    assert "PurgeThings" not in {rpc.name for rpc in _planted().rpcs}


def test_a_service_of_internal_methods_alone_is_not_transcoded() -> None:
    files = descriptor_pb2.FileDescriptorSet.FromString(planted(DESCRIPTORS.read_bytes()))
    for method in files.file[-1].service[0].method:
        method.options.Extensions[access_pb2.access] = access_pb2.ACCESS_INTERNAL
    assert SERVICE not in read_routes(files.SerializeToString()).transcoded_services


def test_a_method_that_does_not_say_who_may_call_it_is_refused() -> None:
    files = descriptor_pb2.FileDescriptorSet.FromString(planted(DESCRIPTORS.read_bytes()))
    files.file[-1].service[0].method[0].options.ClearExtension(access_pb2.access)
    with pytest.raises(DescriptorError, match=r"PlantedService\.CreateThing does not say who may call it"):
        read_routes(files.SerializeToString())


def test_what_is_no_descriptor_set_is_refused() -> None:
    with pytest.raises(DescriptorError, match="not a descriptor set"):
        read_routes(b"\xff\xff\xff")


def test_the_creating_rpcs_of_the_contract() -> None:
    assert {rpc.name for rpc in routes().rpcs if rpc.creates} == {"Register", "CreateTask", "CreateProject", "CreateApiToken", "CreateWebhook"}


@pytest.mark.parametrize(
    ("template", "fits", "fits_not"),
    [
        ("/v1/things", "/v1/things", "/v1/things/1"),
        ("/v1/things/{id}", "/v1/things/a.b", "/v1/things/a/b"),
        ("/v1/things/{thing.id}:undelete", "/v1/things/1:undelete", "/v1/things/1"),
        ("/v1/{name=shelves/*}/books", "/v1/shelves/1/books", "/v1/shelves/1/2/books"),
        ("/v1/{name=shelves/**}", "/v1/shelves/1/2", "/v1/shelf/1"),
        ("/v1/a.b", "/v1/a.b", "/v1/axb"),
    ],
)
def test_templates_become_expressions(template: str, fits: str, fits_not: str) -> None:
    expression = RestPath("GET", template).regex
    assert RestPath("GET", template).variable == ("{" in template)
    assert re.fullmatch(expression, fits)
    assert not re.fullmatch(expression, fits_not)


def test_a_package_names_its_cluster() -> None:
    assert cluster_of("taskmanager.auth.v1") == "auth_service"
    with pytest.raises(DescriptorError):
        cluster_of("elsewhere")


def test_the_times_of_a_request_are_those_that_a_client_sets() -> None:
    times = {rpc.name: rpc.times for rpc in routes().rpcs if rpc.times}
    tasks = dict.fromkeys(("CreateTask", "UpdateTask", "ReplaceTask", "BatchCreateTasks", "BatchUpdateTasks"), ("at", "dueDate", "due_date"))
    assert times == tasks | {"CreateApiToken": ("expiresAt", "expires_at")}
