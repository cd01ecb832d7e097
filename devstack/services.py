"""The two services: their migrations and their replicas, with the environment that they are given."""

from collections.abc import Mapping

from devstack.config import HOST, StackConfig
from devstack.data_dir import DataDir
from devstack.keys import Keys
from devstack.ports import Allocation, Replica
from devstack.probe import http_ok
from devstack.process import Spec

_PACKAGES = {"auth": "auth_service", "task": "task_service"}
# What a service may take after SIGTERM by its own settings (SHUTDOWN_GRACE_SECONDS is 10 by default), and a little.
_STOP_TIMEOUT_SECONDS = 15.0


class Services:
    """Makes the processes of both services."""

    def __init__(self, config: StackConfig, data: DataDir, ports: Allocation, keys: Keys, stores: Mapping[str, str]) -> None:
        """`stores` are DATABASE_URL and REDIS_URL."""
        self._config = config
        self._data = data
        self._ports = ports
        self._keys = keys
        self._stores = stores

    def migrations(self) -> list[Spec]:
        """One command for each service, in no order."""
        return [
            Spec(
                name=f"migrate-{kind}",
                command=(*self._config.commands[package], "migrate"),
                environment=self._common(kind),
                log=self._data.logs / f"migrate-{kind}.log",
            )
            for kind, package in _PACKAGES.items()
        ]

    def auth(self) -> list[Spec]:
        """The replicas of auth_service."""
        return [self._replica("auth", replica) for replica in self._ports.auth]

    def task(self) -> list[Spec]:
        """The replicas of task_service."""
        return [self._replica("task", replica) for replica in self._ports.task]

    def _replica(self, kind: str, replica: Replica) -> Spec:
        return Spec(
            name=replica.name,
            command=(*self._config.commands[_PACKAGES[kind]], "run"),
            environment={**self._common(kind), "GRPC_PORT": str(replica.grpc), "OPS_PORT": str(replica.ops)},
            log=self._data.logs / f"{replica.name}.log",
            ready=http_ok(replica.ops, "/readyz"),
            ports={"grpc_port": replica.grpc, "ops_port": replica.ops},
            stop_timeout_seconds=_STOP_TIMEOUT_SECONDS,
            start_timeout_seconds=self._config.start_timeout_seconds,
        )

    def _common(self, kind: str) -> dict[str, str]:
        # PGOPTIONS and its like reach asyncpg beside DATABASE_URL.
        inherited = {name: value for name, value in self._config.inherited.items() if not name.startswith("PG")}
        return {
            **inherited,
            "PYTHONUNBUFFERED": "1",
            "DRAIN_DELAY_SECONDS": str(self._config.drain_delay_seconds),
            **self._config.environment,
            "ENVIRONMENT": "development",
            "BIND_HOST": HOST,
            **self._stores,
            **self._own(kind),
        }

    def _own(self, kind: str) -> dict[str, str]:
        if kind == "auth":
            return {"SIGNING_KEY": self._keys.signing_key}
        return {"JWKS_URL": f"http://{HOST}:{self._ports.auth[0].ops}/.well-known/jwks.json", "PAGE_TOKEN_KEY": self._keys.page_token_key}
