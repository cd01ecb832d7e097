"""What the cache does when its state changes, or is not known: Redis is lost, another generation begins, a write has no fence."""

import contextlib
import time
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from redis.asyncio import Redis as Client

from devstack.stack import Stack
from servicekit.stores.postgres import Database
from servicekit.stores.redis import Redis
from task_service.cache.domain import Mode
from task_service.tasks.domain import Actor, Task
from task_service.tasks.repository import PostgresTasks
from tests.servicekit.stores.databases import through
from tests.support.proxy import Proxy, proxied
from tests.support.waiting import eventually
from tests.task_service.conftest import FIELDS, WITHIN_SECONDS, Clock, Replica
from tests.task_service.tasks.cached.conftest import Stopping, key_of, require_hit, retitle, title_of


async def test_if_redis_loses_the_fences_nothing_is_filled_in_their_generation(
    replica: Replica, below: Stopping, other: Replica, client: Client, actor: Actor, task: Task
) -> None:
    async def flush_and_read() -> None:
        below.before_write = None
        await client.delete(key_of(other, task).rpartition(f":{task.user_id}")[0])
        for _ in range(2):
            assert await title_of(other, task) == FIELDS.title

    below.before_write = flush_and_read
    await retitle(replica, actor, task, "new")
    assert await title_of(other, task) == "new"
    await other.state.round()
    assert other.state.relied_on is not None
    assert other.state.relied_on.mode is Mode.OFF


async def test_what_a_replica_writes_that_is_cut_off_from_redis_is_seen_at_once(
    replica: Replica, tasks: PostgresTasks, database: Database, system: Stack, actor: Actor, task: Task
) -> None:
    """The reader reaches Redis, which has the old value, and relies on it until it has read of OFF or its knowledge is too old."""
    reader = Replica(tasks, database, replica.redis, time.monotonic)
    await reader.switch_on()
    async with _proxied(system) as proxy:
        redis = Redis(through(system.state.redis_url, proxy.port), CollectorRegistry())
        await redis.start()
        writer = Replica(tasks, database, redis, time.monotonic)
        await writer.switch_on()
        await title_of(reader, task)
        await require_hit(reader, task, FIELDS.title)
        await proxy.stop()
        await retitle(writer, actor, task, "new")
        assert await title_of(reader, task) == "new"
        assert reader.reads("expired") == 1
        await reader.state.round()
        assert await title_of(reader, task) == "new"
        assert reader.reads("off") == 1
        await redis.close()


def _proxied(system: Stack) -> contextlib.AbstractAsyncContextManager[Proxy]:
    parts = urlsplit(system.state.redis_url)
    assert parts.hostname is not None
    return proxied(parts.hostname, parts.port or 0)


async def test_a_write_without_a_fence_waits_once_and_only_after_off(
    replica: Replica, tasks: PostgresTasks, database: Database, actor: Actor, task: Task
) -> None:
    away = Redis("redis://127.0.0.1:1", CollectorRegistry())
    writer = Replica(tasks, database, away, time.monotonic)
    began = time.monotonic()
    await retitle(writer, actor, task, "first")
    first = time.monotonic() - began
    began = time.monotonic()
    for number in range(5):
        await retitle(writer, actor, task, f"next {number}")
    assert first >= 0.5
    assert time.monotonic() - began < 5 * 0.5
    await away.close()


async def test_a_write_that_was_fenced_in_another_generation_is_made_again(
    replica: Replica, below: Stopping, other: Replica, actor: Actor, task: Task
) -> None:
    await title_of(other, task)
    generation = other.state.relied_on

    async def change() -> None:
        below.before_write = None
        assert generation is not None
        await other.state._set_off(generation)
        await other.switch_on()

    below.before_write = change
    await retitle(replica, actor, task, "new")
    assert below.writes == 2
    await replica.state.round()
    assert replica.state.relied_on == other.state.relied_on != generation
    await require_hit(other, task, "new")


async def test_a_write_that_waited_in_off_is_made_again_after_off(
    replica: Replica, below: Stopping, other: Replica, actor: Actor, task: Task
) -> None:
    """The cache is ON again before the statement begins, and a reader has filled in the old row."""
    assert replica.state.relied_on is not None
    await replica.state._set_off(replica.state.relied_on)
    assert isinstance(replica.clock, Clock)
    replica.clock.seconds += 0.5

    async def switch_on() -> None:
        below.before_write = None
        await other.switch_on()
        assert await title_of(other, task) == FIELDS.title
        await require_hit(other, task, FIELDS.title)

    below.before_write = switch_on
    await retitle(replica, actor, task, "new")
    assert below.writes == 2
    assert await title_of(other, task) == "new"


async def test_without_redis_reads_and_writes_go_on(tasks: PostgresTasks, database: Database, system: Stack, actor: Actor, task: Task) -> None:
    redis = Redis(system.state.redis_url, CollectorRegistry())
    await redis.start()
    replica = Replica(tasks, database, redis, time.monotonic)
    await replica.switch_on()
    await redis.close()
    assert await title_of(replica, task) == task.title
    assert replica.reads("unavailable") == 1
    await retitle(replica, actor, task, "new")
    assert await title_of(replica, task) == "new"


async def test_knowledge_that_is_too_old_is_not_relied_on(replica: Replica, task: Task) -> None:
    assert isinstance(replica.clock, Clock)
    await title_of(replica, task)
    replica.clock.seconds += 0.44
    await require_hit(replica, task, task.title)
    replica.clock.seconds += 0.02
    assert await title_of(replica, task) == task.title
    assert (replica.reads("hit"), replica.reads("expired")) == (1, 1)


async def test_in_armed_a_write_is_fenced_and_no_read_relies_on_its_value(replica: Replica, other: Replica, actor: Actor, task: Task) -> None:
    assert isinstance(replica.clock, Clock)
    assert replica.state.relied_on is not None
    await replica.state._set_off(replica.state.relied_on)
    replica.clock.seconds += 0.5
    await replica.state.round()
    assert replica.state._latest is not None
    assert replica.state._latest.mode is Mode.ARMED
    # As in a round while a transaction still keeps anybody from setting ON.
    assert await replica.state._has_keys(replica.state._latest)
    assert replica.state.relied_on is not None
    await retitle(replica, actor, task, "new")
    assert await title_of(replica, task) == "new"
    assert replica.reads("hit") == 0
    await eventually(other.switch_on, within=WITHIN_SECONDS)
    await require_hit(other, task, "new")
