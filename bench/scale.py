"""`python -m bench.scale`: simulates the calls of a peak against the pods, cores and connections of docs/scale.md, and prints both beside each other.

Calls arrive at random (Poisson) and have exponential service times with the measured means. Each passes a core of the gateway, the core of a pod of
task-service, and, unless the cache answers, a connection of the pod's pool, a session of PgBouncer and a core of PostgreSQL. Every queue is first in,
first out. Of two pods chosen at random, a call takes the one that is free earlier, as Envoy's LEAST_REQUEST does.
"""

import argparse
import heapq
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.capacity import GATEWAY_CORES, HELD_SECONDS, SHARES, Costs, Need, held_seconds, mean, need, reaches_postgres

POOL_SIZE = 10
# The measured CPU µs of a call by REST: the table in docs/scale.md.
MEASURED: Mapping[str, Mapping[str, float]] = {
    "service": {"get": 505, "list": 770, "create": 759},
    "gateway": {"get": 279, "list": 494, "create": 393},
    "postgres": {"get": 48, "list": 149, "create": 597},
    "valkey": {"get": 63, "list": 0, "create": 6},
}
MICROSECONDS = 1e-6
ZONES = 3


class Servers:
    """Several equal servers with one queue. Calls must come in the order of their times."""

    def __init__(self, count: int) -> None:
        self._free_at = [0.0] * count
        self.busy_seconds = 0.0

    @property
    def free_at(self) -> float:
        """When the next server is free."""
        return self._free_at[0]

    def serve(self, at: float, seconds: float) -> float:
        """Serves a call that comes at a time, and returns when it ends."""
        end = max(at, self._free_at[0]) + seconds
        self.hold(end)
        self.busy_seconds += seconds
        return end

    def hold(self, until: float) -> None:
        """Keeps the server that is free first until a time."""
        heapq.heapreplace(self._free_at, until)

    def use(self, seconds: float) -> float:
        """Returns the part of the time in which a server was busy."""
        return self.busy_seconds / seconds / len(self._free_at)


@dataclass(slots=True)
class System:
    """The servers of a system."""

    gateways: Sequence[Servers]
    pods: Sequence[Servers]
    pools: Sequence[Servers]
    sessions: Servers
    postgres: Servers
    latencies: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, wanted: Need, lost_zones: int = 0) -> "System":
        """Returns the system of the arithmetic, without the pods of the zones that are lost."""
        gateways, pods = (count - count * lost_zones // ZONES for count in (wanted.gateway_pods, wanted.task_pods))
        return cls(
            [Servers(GATEWAY_CORES) for _ in range(gateways)],
            [Servers(1) for _ in range(pods)],
            [Servers(POOL_SIZE) for _ in range(pods)],
            Servers(wanted.sessions),
            Servers(wanted.postgres_cores),
        )


def measured() -> Costs:
    """Returns the measured mean costs of a call, in seconds."""
    return Costs(**{part: mean(costs) * MICROSECONDS for part, costs in MEASURED.items()})


def simulate(system: System, rate: float, seconds: float, seed: int) -> None:
    """Lets calls arrive for a time, and adds what they met to the system."""
    chance = random.Random(seed)
    kinds, weights = list(SHARES), list(SHARES.values())
    # Time, number (so that equal times have an order), step, kind, pod, arrival.
    events: list[tuple[float, int, int, str, int, float]] = []
    at, number = 0.0, 0
    while (at := at + chance.expovariate(rate)) < seconds:
        number += 1
        events.append((at, number, 0, chance.choices(kinds, weights)[0], 0, at))
    heapq.heapify(events)
    while events:
        now, number, step, kind, pod, arrived = heapq.heappop(events)
        if step == 0:
            end = _freest(system.gateways, chance)[1].serve(now, _cpu(chance, "gateway", kind))
        elif step == 1:
            pod, server = _freest(system.pods, chance)
            end = server.serve(now, _cpu(chance, "service", kind))
        elif step == 2 and chance.random() < reaches_postgres(kind):
            end = _query(system, chance, now, kind, pod)
        else:
            system.latencies.append(now - arrived)
            continue
        heapq.heappush(events, (end, number, step + 1, kind, pod, arrived))


def _freest(servers: Sequence[Servers], chance: random.Random) -> tuple[int, Servers]:
    place = min(chance.choices(range(len(servers)), k=2), key=lambda index: servers[index].free_at)
    return place, servers[place]


def _cpu(chance: random.Random, part: str, kind: str) -> float:
    return chance.expovariate(1 / (MEASURED[part][kind] * MICROSECONDS))


def _query(system: System, chance: random.Random, now: float, kind: str, pod: int) -> float:
    """A statement: it waits for the pod's pool, for a session and for a core, and holds the first two until the network and the disk are done."""
    begin = max(now, system.pools[pod].free_at, system.sessions.free_at)
    # The measured CPU is the mean of all calls of the kind, also of those that the cache answers.
    cpu = _cpu(chance, "postgres", kind) / reaches_postgres(kind)
    end = system.postgres.serve(begin, cpu) + chance.expovariate(1 / HELD_SECONDS[kind])
    for held in (system.pools[pod], system.sessions):
        held.hold(end)
        held.busy_seconds += end - begin
    return end


def parts_used(wanted: Need, system: System, costs: Costs, seconds: float) -> Mapping[str, tuple[float, float]]:
    """Returns the use of each part, by the arithmetic and in the simulation."""
    rate = wanted.calls
    held = rate * held_seconds(costs)
    return {
        "gateway, cores": (rate * costs.gateway / len(system.gateways) / GATEWAY_CORES, _mean(system.gateways, seconds)),
        "task-service, cores": (rate * costs.service / len(system.pods), _mean(system.pods, seconds)),
        "pools, connections": (held / len(system.pools) / POOL_SIZE, _mean(system.pools, seconds)),
        "PgBouncer, sessions": (held / wanted.sessions, system.sessions.use(seconds)),
        "PostgreSQL, cores": (rate * costs.postgres / wanted.postgres_cores, system.postgres.use(seconds)),
    }


def table(used: Mapping[str, tuple[float, float]]) -> str:
    """Returns the use of each part as Markdown."""
    lines = [f"| {name} | {arithmetic:.0%} | {simulated:.0%} |" for name, (arithmetic, simulated) in used.items()]
    return "\n".join(("| used | arithmetic | simulated |", "| --- | ---: | ---: |", *lines))


def _mean(servers: Sequence[Servers], seconds: float) -> float:
    return sum(each.use(seconds) for each in servers) / len(servers)


def quantile(values: Sequence[float], part: float) -> float:
    """Returns the value below which this part of the values lies."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def main() -> None:
    """Parses the command line, and prints the tables with all zones and without one."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description="Checks the arithmetic of docs/scale.md by a simulation.")
    parser.add_argument("--users", type=int, default=10_000_000, metavar="N", help="number of users (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="simulated time (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="the same seed gives the same calls (%(default)s)")
    options = parser.parse_args()
    costs = measured()
    wanted = need(options.users, costs)
    for lost in (0, 1):
        system = System.of(wanted, lost)
        simulate(system, wanted.calls, options.seconds, options.seed)
        p50, p99 = (quantile(system.latencies, part) * 1000 for part in (0.5, 0.99))
        sys.stdout.write(
            f"{options.users} users, {wanted.calls:.0f} calls/s, {lost} of {ZONES} zones lost: {len(system.pods)} pods of task-service,"
            f" {len(system.gateways)} of the gateway\n\n{table(parts_used(wanted, system, costs, options.seconds))}\n\n"
            f"p50 {p50:.1f} ms, p99 {p99:.1f} ms\n\n"
        )


if __name__ == "__main__":
    main()
