"""The receiver of `tm webhooks listen`: it takes what the package of Standard Webhooks has signed, and nothing else."""

import base64
import json
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook as Signer

from task_manager_client.cli.receiver import Event, Receiver, Refusal
from task_manager_client.cli.signatures import TOLERANCE_SECONDS, NotVerified, UnreadableSecret, key_of, verify

OLD, NEW, OTHER = ("whsec_" + base64.b64encode(bytes([number]) * 32).decode() for number in range(3))
BODY = '{"type":"ping","timestamp":"2027-01-01T00:00:00Z","data":{}}'
SKEW = timedelta(seconds=TOLERANCE_SECONDS)
# A fixed time: the cases are made when the tests are collected, which can be long before they run.
AT = datetime(2027, 1, 1, tzinfo=UTC)


def signed(body: str, *secrets: str, at: datetime | None = None, message_id: str = "msg_1") -> dict[str, str]:
    """Returns the headers of a request that is signed with each of the secrets."""
    at = at or datetime.now(UTC)
    signatures = " ".join(Signer(secret).sign(message_id, at, body) for secret in secrets)
    return {"webhook-id": message_id, "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signatures}


@given(st.binary(min_size=24, max_size=64), st.text(st.characters(exclude_categories=["Cs"])))
def test_what_the_package_has_signed_is_verified(key: bytes, body: str) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    headers = signed(body, secret)
    assert verify(headers, body.encode(), [key_of(secret)], time.time()) == "msg_1"
    with pytest.raises(NotVerified):
        verify(headers, body.encode() + b" ", [key_of(secret)], time.time())


@pytest.mark.parametrize("has", [(OLD,), (NEW,), (OLD, NEW), (NEW, OLD)], ids=["old", "new", "both", "reverse"])
def test_during_a_rotation_either_secret_is_enough(has: tuple[str, ...]) -> None:
    assert verify(signed(BODY, NEW, OLD), BODY.encode(), [key_of(secret) for secret in has], time.time()) == "msg_1"


def test_after_a_rotation_a_receiver_with_both_secrets_takes_the_new_one_alone() -> None:
    assert verify(signed(BODY, NEW), BODY.encode(), [key_of(OLD), key_of(NEW)], time.time()) == "msg_1"
    with pytest.raises(NotVerified, match="none of its signatures"):
        verify(signed(BODY, NEW), BODY.encode(), [key_of(OLD)], time.time())


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"webhook-id": "msg_2"}, "none of its signatures"),
        ({"webhook-id": ""}, "no signature"),
        ({"webhook-timestamp": "1"}, "5 minutes"),
        ({"webhook-timestamp": "soon"}, "not a number"),
        ({"webhook-timestamp": "9" * 5000}, "not a number"),
        ({"webhook-timestamp": "٣"}, "not a number"),
        ({"webhook-signature": ""}, "no signature"),
        ({"webhook-signature": "v1,"}, "none of its signatures"),
        ({"webhook-signature": "v1,é"}, "none of its signatures"),
        ({"webhook-signature": "v2," + Signer(NEW).sign("msg_1", AT, BODY).removeprefix("v1,")}, "none of its signatures"),
        (signed(BODY, OTHER, at=AT), "none of its signatures"),
        (signed(BODY, NEW, at=AT - SKEW - timedelta(seconds=1)), "5 minutes"),
        (signed(BODY, NEW, at=AT + SKEW + timedelta(seconds=1)), "5 minutes"),
    ],
    ids=["id", "no id", "old", "word", "digits", "unicode", "no signature", "empty", "letter", "version", "secret", "too old", "too new"],
)
def test_anything_else_is_not_verified(changed: dict[str, str], reason: str) -> None:
    headers = signed(BODY, NEW, at=AT)
    assert verify(headers, BODY.encode(), [key_of(NEW)], AT.timestamp()) == "msg_1"
    with pytest.raises(NotVerified, match=reason):
        verify(headers | changed, BODY.encode(), [key_of(NEW)], AT.timestamp())


@pytest.mark.parametrize("away", [-SKEW, SKEW], ids=["early", "late"])
def test_clocks_may_differ_by_five_minutes(away: timedelta) -> None:
    assert verify(signed(BODY, NEW, at=AT), BODY.encode(), [key_of(NEW)], (AT + away).timestamp())


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_AAAA", "not base64!", NEW + "x", "whsec_" + base64.b64encode(bytes(65)).decode()])
def test_a_text_that_is_no_secret_is_not_repeated_in_the_error(text: str) -> None:
    with pytest.raises(UnreadableSecret) as unreadable:
        key_of(text)
    assert text in {"", "whsec_"} or text not in str(unreadable.value)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver(0)
    made.keys = (key_of(NEW),)
    with made.running():
        yield made


def test_a_right_request_gets_204_and_a_wrong_one_400(receiver: Receiver) -> None:
    with httpx.Client(base_url=receiver.url) as client:
        assert client.post("/any/path", content=BODY, headers=signed(BODY, NEW)).status_code == 204
        assert receiver.arrived.get() == Event("msg_1", json.loads(BODY))
        assert client.post("/", content=BODY, headers=signed(BODY, OTHER)).status_code == 400
        assert isinstance(receiver.arrived.get(), Refusal)
        assert client.post("/", content="[]", headers=signed("[]", NEW)).status_code == 400
        assert receiver.arrived.get() == Refusal("it is not a JSON object")
        assert client.post("/", content="{", headers=signed("{", NEW)).status_code == 400
        assert client.post("/", content=iter([b""])).status_code == 411
        assert client.get("/").status_code == 501


@pytest.mark.parametrize(("length", "status"), [("1048577", 413), ("-1", 411), ("9" * 5000, 411)], ids=["large", "negative", "digits"])
def test_a_length_that_it_does_not_read_is_refused_at_once(receiver: Receiver, length: str, status: int) -> None:
    connection = HTTPConnection("127.0.0.1", receiver.server_port, timeout=10)
    connection.putrequest("POST", "/")
    connection.putheader("content-length", length)
    connection.endheaders()
    with closing(connection), connection.getresponse() as response:
        assert response.status == status


def test_it_listens_on_the_loopback_interface_alone(receiver: Receiver) -> None:
    assert receiver.socket.getsockname()[0] == "127.0.0.1"
