"""The arithmetic of docs/scale.md: from users to calls, and from measured costs per call to pods, cores, connections and bytes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

DAY_SECONDS: Final = 86_400
# What a user does, all assumed: calls a day, tasks, and the part of the users that watch at the same time.
CALLS_A_DAY: Final = 40
TASKS: Final = 100
WATCHING: Final = 0.02
# The busiest hour beside the mean of a day.
PEAK: Final = 3
# The kinds of calls with their shares. A created task stands for all writes, and four of five tasks that are read come from the cache.
SHARES: Final[Mapping[str, float]] = {"get": 0.7, "list": 0.2, "create": 0.1}
CACHED: Final = 0.8
LOGINS: Final = 1 / 5000
# How long a call holds a connection to PostgreSQL besides its CPU, assumed: the network between two machines, and for a write the disk.
HELD_SECONDS: Final[Mapping[str, float]] = {"get": 0.001, "list": 0.002, "create": 0.005}

# If one of three zones fails, what is left is used at 90 %.
USED: Final = 0.6
FEWEST: Final = 2
GATEWAY_CORES: Final = 2
# A login is 0.25 s of bcrypt on one of HASHING_THREADS (1) threads.
LOGIN_SECONDS: Final = 0.25
# MAX_CONCURRENT_STREAMS of a pod of task-service, and MAX_CONNECTIONS of a pod of the gateway.
STREAMS, CLIENTS = 5_000, 10_000
# Connections of a pod, with DATABASE_POOL_MAX_SIZE at 10.
TASK_CONNECTIONS, AUTH_CONNECTIONS = 11, 13

# Bytes in PostgreSQL, measured: of a task with two labels and its indexes, of a change in the log, and of the write-ahead log of a write.
TASK_BYTES, CHANGE_BYTES, WAL_BYTES = 1_340, 830, 2_935
# CHANGE_RETENTION_DAYS.
KEPT_DAYS: Final = 7
# Space that vacuum has not reclaimed yet, assumed.
BLOAT: Final = 1.5


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU seconds of a call, on the average of the kinds."""

    service: float
    gateway: float
    postgres: float
    valkey: float


@dataclass(frozen=True, slots=True)
class Need:
    """What a number of users needs at the peak. `sessions` are those of PgBouncer, `connections` those without it."""

    calls: float
    watches: int
    task_pods: int
    gateway_pods: int
    auth_pods: int
    postgres_cores: int
    valkey_cores: float
    connections: int
    while_rolling: int
    sessions: int
    disk_bytes: float
    wal_bytes: float


def mean(costs: Mapping[str, float]) -> float:
    """Returns the mean of a cost by kind, weighted by the shares of the calls."""
    return sum(share * costs[kind] for kind, share in SHARES.items())


def reaches_postgres(kind: str) -> float:
    """Returns the part of the calls of a kind that need PostgreSQL."""
    return 1 - CACHED if kind == "get" else 1.0


def held_seconds(costs: Costs) -> float:
    """Returns how long a call holds a connection to PostgreSQL, on the average of all calls."""
    return costs.postgres + sum(share * reaches_postgres(kind) * HELD_SECONDS[kind] for kind, share in SHARES.items())


def need(users: int, costs: Costs) -> Need:
    """Returns what the users need."""
    calls = users * CALLS_A_DAY / DAY_SECONDS * PEAK
    watches = round(users * WATCHING)
    task = max(FEWEST, math.ceil(calls * costs.service / USED), math.ceil(watches / (STREAMS * USED)))
    gateway = max(FEWEST, math.ceil(calls * costs.gateway / USED / GATEWAY_CORES), math.ceil(watches / (CLIENTS * USED)))
    auth = max(FEWEST, math.ceil(calls * LOGINS * LOGIN_SECONDS / USED))
    held = calls * held_seconds(costs)
    return Need(
        calls=calls,
        watches=watches,
        task_pods=task,
        gateway_pods=gateway,
        auth_pods=auth,
        postgres_cores=max(FEWEST, math.ceil(calls * costs.postgres / USED)),
        valkey_cores=calls * costs.valkey,
        connections=connections(task, auth),
        while_rolling=connections(task + 2 * math.ceil(task / 4), auth + 2 * math.ceil(auth / 4)),
        sessions=max(FEWEST, math.ceil(held / USED)),
        disk_bytes=users * (TASKS * TASK_BYTES + CALLS_A_DAY * SHARES["create"] * KEPT_DAYS * CHANGE_BYTES) * BLOAT,
        wal_bytes=calls * SHARES["create"] * WAL_BYTES,
    )


def connections(task_pods: int, auth_pods: int) -> int:
    """Returns the connections to PostgreSQL of so many pods."""
    return task_pods * TASK_CONNECTIONS + auth_pods * AUTH_CONNECTIONS
