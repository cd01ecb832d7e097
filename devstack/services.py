"""The two services and the worker: the specs of their migrations and processes, with their environments."""

from collections.abc import Callable, Mapping, Sequence

from devstack.config import HOST, StackConfig
from devstack.data_dir import DataDir
from devstack.keys import Keys
from devstack.ports import Allocation, Replica
from devstack.probe import http_ok
from devstack.process import Spec
from devstack.roles import MIGRATOR, WORKER

# The package, the command and the database role of each kind of process.
_PROGRAMS = {
    "auth": ("auth_service", "run", "auth_service"),
    "task": ("task_service", "run", "task_service"),
    "task-worker": ("task_service", "work", WORKER),
}
# A little more than a service takes to stop after SIGTERM with its default settings (SHUTDOWN_GRACE_SECONDS is 10).
_STOP_TIMEOUT_SECONDS = 15.0


class Services:
    """Creates the specs of the processes of both services and of the worker."""

    def __init__(self, config: StackConfig, data: DataDir, ports: Allocation, keys: Keys, database_url: Callable[[str], str], redis_url: str) -> None:
        """`database_url` maps a role to the URL with which it logs in."""
        self._config = config
        self._data = data
        self._ports = ports
        self._keys = keys
        self._database_url = database_url
        self._redis_url = redis_url

    def migrations(self) -> list[Spec]:
        """Returns one migration for each service. They may run at the same time."""
        return [
            Spec(
                name=f"migrate-{kind}",
                command=(*self._config.commands[package], "migrate"),
                environment={**self._common(), "DATABASE_URL": self._database_url(MIGRATOR), "SERVICE_ROLE": package, "WORKER_ROLE": worker},
                log=self._data.logs / f"migrate-{kind}.log",
            )
            for kind, package, worker in (("auth", "auth_service", ""), ("task", "task_service", WORKER))
        ]

    def all(self) -> list[Spec]:
        """Returns the specs of all replicas of the services and of the workers."""
        ports = {"auth": self._ports.auth, "task": self._ports.task, "task-worker": self._ports.task_worker}
        return [self._replica(kind, replica) for kind, replicas in ports.items() for replica in replicas]

    def _replica(self, kind: str, replica: Replica) -> Spec:
        package, command, _ = _PROGRAMS[kind]
        return Spec(
            name=replica.name,
            command=(*self._config.commands[package], command),
            environment={**self._common(), **self._own(kind), "GRPC_PORT": str(replica.grpc), "OPS_PORT": str(replica.ops)},
            log=self._data.logs / f"{replica.name}.log",
            ready=http_ok(replica.ops, "/readyz"),
            ports={"grpc_port": replica.grpc, "ops_port": replica.ops},
            stop_timeout_seconds=_STOP_TIMEOUT_SECONDS,
            start_timeout_seconds=self._config.start_timeout_seconds,
        )

    def _common(self) -> dict[str, str]:
        # asyncpg also reads variables such as PGOPTIONS, in addition to DATABASE_URL.
        inherited = {name: value for name, value in self._config.inherited.items() if not name.startswith("PG")}
        return {
            **inherited,
            "PYTHONUNBUFFERED": "1",
            **({"DATABASE_POOLER": "pgbouncer"} if self._config.pgbouncer else {}),
            "DRAIN_DELAY_SECONDS": str(self._config.drain_delay_seconds),
            **self._config.environment,
            "ENVIRONMENT": "development",
            "BIND_HOST": HOST,
        }

    def _own(self, kind: str) -> Mapping[str, str]:
        keys = self._keys
        stores = {"DATABASE_URL": self._database_url(_PROGRAMS[kind][2]), "REDIS_URL": self._redis_url}
        sealing = {**stores, "KEY_ENCRYPTION_KEY": keys.key_encryption_key}
        if kind == "task-worker":
            return sealing
        if kind == "auth":
            return {**sealing, "SERVICE_TOKEN": keys.service_token}
        return {
            **sealing,
            "SERVICE_TOKEN": keys.service_token,
            "JWKS_URL": f"http://{HOST}:{self._ports.auth[0].ops}/.well-known/jwks.json",
            "AUTH_GRPC_ENDPOINT": _target(self._ports.auth),
            "PAGE_TOKEN_KEY": keys.page_token_key,
        }


def _target(replicas: Sequence[Replica]) -> str:
    """Returns a gRPC target with the addresses of all replicas, so that gRPC connects to another replica if one stops."""
    addresses = ",".join(f"{HOST}:{replica.grpc}" for replica in replicas)
    return f"ipv4:{addresses}" if len(replicas) > 1 else addresses
