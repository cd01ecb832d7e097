"""One user at full force: the memory of a replica stays below the chart's limit, and the calls of another user stay fast."""

import asyncio
import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import httpx
import pytest
from taskmanager.task.v1 import task_service_pb2, task_service_pb2_grpc

from devstack.config import HOST, StackConfig
from devstack.stack import Stack
from tests.support.accounts import Account, make_account
from tests.support.errors import of_rpc
from tests.support.observed import metric
from tests.support.rest_uploads import BODY, PATH
from tests.support.unread import STREAMS
from tests.support.uploads import BATCH
from tests.support.waiting import eventually

pytestmark = pytest.mark.alone("loads a system, and measures its memory and times")

# The memory limits of task-service and of the gateway in the chart.
LIMIT_MIB, GATEWAY_LIMIT_MIB = 384, 640
BATCHES, WATCHES, CONNECTIONS = 40, 60, 3
MEASURED_SECONDS = 5.0
ROOT = Path(__file__).parents[2]
# The 99th percentile of the other user's calls: at most three times that of an idle system, or so much, because a single one is a matter of chance.
TIMES, LEAST_SECONDS = 3, 0.1
# A gateway with so little memory is full after a few seconds.
HEAP_MIB, UNREAD_SECONDS, USERS = 160, 0.5, 4
LARGE_LIST = "/api/v1/tasks?page_size=100"
# How many pages of 2 MiB a replica sends to one user over REST: those that had been made when the test began to count, and then an even flow.
LISTS_AT_ONCE, LISTS_PER_SECOND = 4, 0.3


@pytest.fixture
def heap_mib(request: pytest.FixtureRequest) -> int:
    """The memory of the gateway: by default as much as in the chart."""
    given: int = getattr(request, "param", 512)
    return given


@pytest.fixture
async def stack(heap_mib: int) -> AsyncIterator[Stack]:
    """One replica of each service, whose memory nothing else has used."""
    environment = {"BCRYPT_COST": "4", "LOG_LEVEL": "WARNING", "MAX_HEAP_BYTES": str(heap_mib * 1024 * 1024)}
    async with Stack(StackConfig(auth_replicas=1, task_replicas=1, environment=environment)) as stack:
        yield stack


@pytest.fixture
async def rest(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=stack.state.url, timeout=60) as client:
        yield client


@pytest.fixture
async def stub(stack: Stack) -> AsyncIterator[task_service_pb2_grpc.TaskServiceStub]:
    async with grpc.aio.insecure_channel(f"{HOST}:{stack.state.processes['task-1'].grpc_port}") as channel:
        yield task_service_pb2_grpc.TaskServiceStub(channel)


@pytest.fixture(scope="module")
def measured() -> dict[str, float]:
    """What the first test measures for all."""
    return {}


@pytest.fixture
async def idle(rest: httpx.AsyncClient, measured: dict[str, float]) -> float:
    """The 99th percentile of a user's times while the system has nothing else to do."""
    if "idle" not in measured:
        measured["idle"] = await _p99(rest, await make_account(rest))
    return measured["idle"]


async def test_many_large_batches_at_once(stack: Stack, rest: httpx.AsyncClient, stub: task_service_pb2_grpc.TaskServiceStub, idle: float) -> None:
    attacker, other = await make_account(rest), await make_account(rest)
    batches = [asyncio.create_task(_create(stub, attacker)) for _ in range(BATCHES)]
    busy = await _p99(rest, other)
    codes = Counter(await asyncio.gather(*batches))
    print(f"{codes}, p99 {idle:.3f} s idle, {busy:.3f} s busy, at most {_peak_mib(stack)} MiB")  # noqa: T201 - the figures of docs/performance.md
    assert set(codes) == {"OK", "OVERLOADED"}
    assert _peak_mib(stack) < LIMIT_MIB
    assert busy < max(TIMES * idle, LEAST_SECONDS)


@pytest.mark.parametrize("left_out", [0, 1], ids=["whole", "without-the-last-byte"])
async def test_hundreds_of_large_requests_at_once(stack: Stack, rest: httpx.AsyncClient, left_out: int, idle: float) -> None:
    attacker, other = await make_account(rest), await make_account(rest)
    environment = {"UPLOADS_AUTHORIZATION": attacker.headers["authorization"]}
    async with _program("tests.support.uploads", stack.state.url, str(CONNECTIONS), str(left_out), **environment):
        await eventually(lambda: _require_uploads(stack, is_whole=not left_out), within=30)
        busy = await _p99(rest, other)
    print(f"p99 {idle:.3f} s idle, {busy:.3f} s busy, at most {_peak_mib(stack)} MiB")  # noqa: T201 - as above
    assert _peak_mib(stack) < LIMIT_MIB
    assert busy < max(TIMES * idle, LEAST_SECONDS)


@pytest.mark.parametrize(("declared", "connections"), [(1, 40), (0, 200)], ids=["whole", "without-an-end"])
async def test_large_uploads_over_rest(stack: Stack, rest: httpx.AsyncClient, declared: int, connections: int, idle: float) -> None:
    """The gateway reads and converts a whole body in one piece. So it takes few of a user, and none of unknown size."""
    attacker, other = await make_account(rest), await make_account(rest)
    environment = {"UPLOADS_AUTHORIZATION": attacker.headers["authorization"]}
    async with _program("tests.support.rest_uploads", stack.state.url, str(connections), str(declared), **environment):
        # In the first interval are the batches that a user may have at once.
        busy = [await _p99(rest, other) for _ in range(3)]
    peaks = _peak_mib(stack), _peak_mib(stack, "gateway")
    print(f"p99 {idle:.3f} s idle, {busy} s busy, at most {peaks} MiB")  # noqa: T201 - as above
    if declared:
        assert (await rest.post(PATH, content=BODY, headers=attacker.headers)).status_code == httpx.codes.TOO_MANY_REQUESTS
    assert peaks[0] < LIMIT_MIB
    assert peaks[1] < GATEWAY_LIMIT_MIB
    assert min(busy) < max(TIMES * idle, LEAST_SECONDS)


async def test_many_streams_whose_clients_read_slowly(
    stack: Stack, rest: httpx.AsyncClient, stub: task_service_pb2_grpc.TaskServiceStub, idle: float
) -> None:
    attacker, other = await make_account(rest), await make_account(rest)
    token = await _end_of_log(stub, attacker)
    assert [await _create(stub, attacker) for _ in range(3)] == ["OK"] * 3
    async with contextlib.AsyncExitStack() as streams:
        for _ in range(WATCHES):
            client = await streams.enter_async_context(httpx.AsyncClient(base_url=stack.state.url, timeout=60))
            query = {"resume_token": token}
            # The client reads the headers and nothing else.
            answer = await streams.enter_async_context(client.stream("GET", "/api/v1/tasks:watch", params=query, headers=attacker.headers))
            assert answer.status_code == httpx.codes.OK
        busy = await _p99(rest, other)
        print(f"p99 {idle:.3f} s idle, {busy:.3f} s busy, at most {_peak_mib(stack)} MiB")  # noqa: T201 - as above
        assert _peak_mib(stack) < LIMIT_MIB
        assert busy < max(TIMES * idle, LEAST_SECONDS)


async def test_many_streams_that_read_everything_again_and_again(
    stack: Stack, rest: httpx.AsyncClient, stub: task_service_pb2_grpc.TaskServiceStub, idle: float
) -> None:
    attacker, other = await make_account(rest), await make_account(rest)
    token = await _end_of_log(stub, attacker)
    assert [await _create(stub, attacker) for _ in range(3)] == ["OK"] * 3
    environment = {"GREEDY_TOKEN": token, "GREEDY_AUTHORIZATION": attacker.headers["authorization"]}
    async with _program("tests.support.greedy", stack.state.url, str(WATCHES), **environment):
        busy = await _p99(rest, other)
    print(f"p99 {idle:.3f} s idle, {busy:.3f} s busy, at most {_peak_mib(stack)} MiB")  # noqa: T201 - as above
    assert _peak_mib(stack) < LIMIT_MIB
    assert busy < max(TIMES * idle, LEAST_SECONDS)


async def test_large_lists_over_rest(stack: Stack, rest: httpx.AsyncClient, stub: task_service_pb2_grpc.TaskServiceStub, idle: float) -> None:
    """The gateway needs about 40 ms for a page of 2 MiB, which it turns into JSON in one piece. So it gets few of them."""
    attacker, other = await make_account(rest), await make_account(rest)
    assert await _create(stub, attacker) == "OK"
    async with _program("tests.support.unread", stack.state.url, "3", UNREAD_PATH=LARGE_LIST, UNREAD_AUTHORIZATION=attacker.headers["authorization"]):
        before, began = await _lists(stack), time.monotonic()
        busy = [await _p99(rest, other) for _ in range(2)]
        lists, seconds = await _lists(stack) - before, time.monotonic() - began
    print(f"{lists} lists in {seconds:.1f} s, p99 {idle:.3f} s idle, {busy} s busy, at most {_peak_mib(stack)} MiB")  # noqa: T201 - as above
    assert 0 < lists <= LISTS_AT_ONCE + seconds * LISTS_PER_SECOND
    assert _peak_mib(stack) < LIMIT_MIB
    assert min(busy) < max(TIMES * idle, LEAST_SECONDS)


@pytest.mark.parametrize("heap_mib", [HEAP_MIB], indirect=True)
async def test_large_answers_that_nobody_reads(
    stack: Stack, rest: httpx.AsyncClient, stub: task_service_pb2_grpc.TaskServiceStub, idle: float
) -> None:
    """No call of the other user is rejected by the gateway, although the answers would take more memory than it has."""
    attackers, other = [await make_account(rest) for _ in range(USERS)], await make_account(rest)
    for attacker in attackers:
        assert await _create(stub, attacker) == "OK"
    users = "\n".join(attacker.headers["authorization"] for attacker in attackers)
    async with _program("tests.support.unread", stack.state.url, "3", UNREAD_PATH=LARGE_LIST, UNREAD_AUTHORIZATION=users):
        busy = [await _p99(rest, other) for _ in range(3)]
    print(f"p99 {idle:.3f} s idle, {busy} s busy, at most {_peak_mib(stack)} MiB")  # noqa: T201 - as above
    assert _peak_mib(stack) < LIMIT_MIB
    assert max(busy) < UNREAD_SECONDS


@contextlib.asynccontextmanager
async def _program(*command: str, **environment: str) -> AsyncIterator[None]:
    """Runs a program of the tests, so that its work is not in the measured times."""
    running = await asyncio.create_subprocess_exec(sys.executable, "-m", *command, env=os.environ | environment, cwd=ROOT)
    try:
        await asyncio.sleep(1)
        yield
        assert running.returncode is None
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.kill()
        await running.wait()


async def _require_uploads(stack: Stack, *, is_whole: bool) -> None:
    """Requires that the server has rejected many whole requests, or that many requests that never end have begun."""
    if is_whole:
        assert await metric(stack, "task-1", "grpc_server_handled_total", grpc_method="BatchCreateTasks", grpc_code="ResourceExhausted") > STREAMS
    else:
        assert await metric(stack, "task-1", "grpc_server_calls_in_flight") > STREAMS


async def _end_of_log(stub: task_service_pb2_grpc.TaskServiceStub, account: Account) -> str:
    begun = stub.WatchTasks(task_service_pb2.WatchTasksRequest(), metadata=account.metadata)
    token: str = (await begun.read()).resume_token
    begun.cancel()
    return token


async def _lists(stack: Stack) -> float:
    return await metric(stack, "task-1", "grpc_server_handled_total", grpc_method="ListTasks", grpc_code="OK")


async def _create(stub: task_service_pb2_grpc.TaskServiceStub, account: Account) -> str:
    """Creates a batch. Returns OK or the reason of the error."""
    try:
        await stub.BatchCreateTasks(BATCH, metadata=account.metadata, timeout=60)
    except grpc.aio.AioRpcError as error:
        return of_rpc(error).reason
    return "OK"


async def _p99(rest: httpx.AsyncClient, account: Account) -> float:
    """Returns the 99th percentile of the times of the user's reads, in seconds."""
    created = await rest.post("/api/v1/tasks", json={"title": "read"}, headers=account.headers)
    times = []
    end = time.monotonic() + MEASURED_SECONDS
    while time.monotonic() < end:
        began = time.monotonic()
        assert (await rest.get(f"/api/v1/tasks/{created.json()['id']}", headers=account.headers)).status_code == httpx.codes.OK
        times.append(time.monotonic() - began)
        await asyncio.sleep(0.02)
    return sorted(times)[int(len(times) * 0.99)]


def _peak_mib(stack: Stack, process: str = "task-1") -> int:
    """Returns the largest resident memory that the process has had."""
    status = Path(f"/proc/{stack.state.processes[process].pid}/status").read_text()
    (peak,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(peak) // 1024
