"""The WebSocket messages: what a client may say, and what comes of everything else."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, to_builtins
from msgspec.json import decode, encode

from gateway.core import protocol
from gateway.core.errors import BadRequest, GatewayError, Invalid
from gateway.core.protocol import (
    Ack,
    Bye,
    ClientChanges,
    CloseCancelledNotice,
    Error,
    Events,
    FromClient,
    FromServer,
    NeedMoreMessage,
    SnapshotMessage,
    StreamMessage,
    SubscribeMessage,
    UpdateMessage,
    WatchMessage,
    parse,
    render,
)
from gateway.core.public import PublicEvent, render_session, rfc3339
from gateway.core.query import Filter
from tests.core.build import BOUNDED, NOW, busy


@pytest.mark.parametrize(
    "text, message",
    [
        (
            '{"type":"watch","ref":"7","key":"movie/42","title":"A","state":"playing","position_ms":0}',
            WatchMessage(ref="7", key="movie/42", title="A", state="playing", position_ms=0),
        ),
        ('{"type":"progress","position_ms":5000}', protocol.ProgressMessage(position_ms=5000)),
        ('{"type":"unwatch"}', protocol.UnwatchMessage()),
        (
            '{"type":"stream","key":"t1","kind":"transcode","state":"running","data":{}}',
            StreamMessage(key="t1", kind="transcode", state="running"),
        ),
        ('{"type":"saving"}', protocol.SavingMessage()),
        ('{"type":"saved"}', protocol.SavedMessage()),
        ('{"type":"need_more","ms":5000}', NeedMoreMessage(ms=5000)),
        ('{"type":"leave"}', protocol.LeaveMessage()),
        ('{"type":"heartbeat"}', protocol.HeartbeatMessage()),
        ('{"type":"token","token":"abc"}', protocol.TokenMessage(token="abc")),
        (
            '{"type":"subscribe","filter":{"workspace":"ws-7"},"since":"p"}',
            SubscribeMessage(filter=Filter(workspace="ws-7"), since="p"),
        ),
        ('{"type":"unsubscribe"}', protocol.UnsubscribeMessage()),
        ('{"future":[1,{"a":null}],"type":"leave"}', protocol.LeaveMessage()),
        (' \n{"type" : "leave"}\n', protocol.LeaveMessage()),
        (b'{"type":"leave"}', protocol.LeaveMessage()),
    ],
)
def test_message_of_a_client_is_read(text: str | bytes, message: FromClient) -> None:
    """Each documented message is read as its type; unknown fields are ignored."""
    assert parse(text) == message


def test_update_is_a_merge_patch() -> None:
    """Null removes and a missing member stays, inside labels, attributes and client too."""
    message = parse(
        '{"type":"update","changes":{"name":null,"labels":{"a":"b","c":null},'
        '"attributes":{"x":{"y":null}},"client":{"version":null,"product":"Web"}}}'
    )

    assert isinstance(message, UpdateMessage)
    assert message.changes.client == ClientChanges(version=None, product="Web")
    assert to_builtins(message.changes) == {
        "name": None,
        "labels": {"a": "b", "c": None},
        "attributes": {"x": {"y": None}},
        "client": {"version": None, "product": "Web"},
    }
    empty = parse('{"type":"update","changes":{}}')
    assert isinstance(empty, UpdateMessage)
    assert empty.changes.name is UNSET


@pytest.mark.parametrize(
    "text", ['{"type":"future"}', '{"type":"","x":1}', '{"type":"hello","ref":"1"}']
)
def test_message_of_an_unknown_type_is_ignored(text: str) -> None:
    """A client may be newer than the gateway."""
    assert parse(text) is None


DEEP_MAPS = '{"type":"watch","key":"k","item":' + '{"a":' * 1000 + "1" + "}" * 1001
DEEP_LISTS = '{"type":"watch","key":"k","item":{"a":' + "[" * 100_000 + "]" * 100_000 + "}}"


@pytest.mark.parametrize(
    "text, error",
    [
        pytest.param(b"", BadRequest, id="empty"),
        pytest.param(b" ", BadRequest, id="blank"),
        pytest.param(b'{"type":"leave"', BadRequest, id="truncated"),
        pytest.param(b'{"type":"leave"} {}', BadRequest, id="two values"),
        pytest.param(b'{"type":"watch","key":"\xff"}', BadRequest, id="not UTF-8"),
        pytest.param(b'{"type":"\xed\xa0\x80"}', BadRequest, id="surrogate bytes"),
        pytest.param('{"type":"watch","key":"\ud800"}', BadRequest, id="surrogate text"),
        pytest.param(rb'{"type":"watch","key":"\ud800"}', BadRequest, id="escaped surrogate"),
        pytest.param(b'\xef\xbb\xbf{"type":"leave"}', BadRequest, id="BOM"),
        pytest.param(DEEP_MAPS, BadRequest, id="maps 1000 deep"),
        pytest.param(DEEP_LISTS, BadRequest, id="lists 100000 deep"),
        pytest.param("[" * 1000, BadRequest, id="list 1000 deep"),
        pytest.param(b'{"type":"leave","type":"watch"}', Invalid, id="two types"),
        pytest.param(b'{"type":"progress","position_ms":NaN}', BadRequest, id="NaN"),
        pytest.param(b'{"type":"progress","position_ms":-Infinity}', BadRequest, id="-Infinity"),
        pytest.param(b'{"type":"watch","key":"k","item":{"a":1e400}}', Invalid, id="1e400"),
        pytest.param(rb'{"type":"watch","key":"a\u0000"}', Invalid, id="NUL"),
        pytest.param(b'{"type":"watch","key":"a\x00"}', BadRequest, id="bare NUL"),
        pytest.param(b'{"type":"watch"}', Invalid, id="missing field"),
        pytest.param(b'{"type":"watch","key":""}', Invalid, id="empty key"),
        pytest.param(b'{"type":"watch","key":null}', Invalid, id="null key"),
        pytest.param(b'{"type":"watch","key":7}', Invalid, id="wrong type"),
        pytest.param(b'{"type":"progress","position_ms":true}', Invalid, id="true for int"),
        pytest.param(b'{"type":"progress","position_ms":1.0}', Invalid, id="float for int"),
        pytest.param(b'{"type":"progress","position_ms":"1"}', Invalid, id="text for int"),
        pytest.param(b'{"type":"progress","position_ms":-1}', Invalid, id="negative"),
        pytest.param(b'{"type":"need_more","ms":18446744073709551616}', Invalid, id="over 64 bits"),
        pytest.param(b'{"type":"need_more","ms":86400001}', Invalid, id="over a day"),
        pytest.param(b'{"type":"update","changes":{"account":"x"}}', Invalid, id="unknown change"),
        pytest.param(b'{"type":"update","changes":{"labels":{"a b":"c"}}}', Invalid, id="label"),
        pytest.param(b'{"type":"subscribe","filter":{"q":1,"x":2}}', Invalid, id="filter"),
        pytest.param(b"null", BadRequest, id="null"),
        pytest.param(b"[]", BadRequest, id="list"),
        pytest.param(b'"leave"', BadRequest, id="text"),
        pytest.param(b"{}", BadRequest, id="no type"),
        pytest.param(b'{"type":7}', BadRequest, id="number as type"),
        pytest.param(b'{"type":"leave","ref":7}', BadRequest, id="number as ref"),
        pytest.param(b'{"type":"leave","ref":"' + b"x" * 65 + b'"}', BadRequest, id="long ref"),
    ],
)
def test_bad_input_is_refused_with_few_of_its_own_words(
    text: str | bytes, error: type[GatewayError]
) -> None:
    """Whatever comes in, the answer is one of two errors, short and without much of the input."""
    with pytest.raises(error) as caught:
        parse(text)

    assert type(caught.value) is error
    assert len(caught.value.detail) <= 120


@pytest.mark.parametrize("ref", ["7", "[]", '"' + "x" * 65 + '"'])
def test_wrong_ref_is_named(ref: str) -> None:
    """The error about a ``ref`` says that it is the ``ref`` that is wrong."""
    with pytest.raises(BadRequest, match="`ref`"):
        parse(f'{{"type":"leave","ref":{ref}}}')


def test_duplicate_field_takes_the_last_value() -> None:
    """A repeated member counts once, as in most readers of JSON; a repeated type is refused."""
    assert parse('{"type":"progress","position_ms":1,"position_ms":2}') == protocol.ProgressMessage(
        position_ms=2
    )


def test_refused_message_repeats_its_ref_and_names_the_field() -> None:
    """A client learns which of its messages was refused, and where."""
    with pytest.raises(Invalid, match=r"\$\.ms") as caught:
        parse('{"ref":"7","type":"need_more","ms":-1}')

    assert caught.value.extra == {"ref": "7"}


def test_long_value_is_not_thrown_back() -> None:
    """An error about a value of many kilobytes does not carry it."""
    with pytest.raises(Invalid) as caught:
        parse(encode({"type": "subscribe", "filter": {"state": "x" * 50_000}}))

    assert "x" * 65 not in caught.value.detail


@BOUNDED
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_answered_or_refused(data: bytes) -> None:
    """No input brings out another error than those of the table."""
    with suppress(GatewayError):
        assert isinstance(parse(data), FromClient | None)


@pytest.mark.parametrize(
    "message, text",
    [
        (Ack(ref="7", revision=5), {"type": "ack", "ref": "7", "revision": 5}),
        (Ack(), {"type": "ack"}),
        (
            Error(code="invalid", message="No.", ref="7"),
            {"type": "error", "code": "invalid", "message": "No.", "ref": "7"},
        ),
        (
            Bye(code=4001, reason="draining", reconnect=True, retry_after_ms=500),
            {
                "type": "bye",
                "code": 4001,
                "reason": "draining",
                "reconnect": True,
                "retry_after_ms": 500,
            },
        ),
        (CloseCancelledNotice(), {"type": "close_cancelled"}),
        (
            protocol.ClosingNotice(closes_at=rfc3339(NOW), in_ms=5000, extend_max_ms=0),
            {"type": "closing", "closes_at": rfc3339(NOW), "in_ms": 5000, "extend_max_ms": 0},
        ),
        (
            SnapshotMessage(sessions=[], position="p", more=False),
            {"type": "snapshot", "sessions": [], "position": "p", "more": False},
        ),
        (
            Events(
                position="p",
                events=[
                    PublicEvent(
                        type="session.settled",
                        session_id="s1",
                        revision=2,
                        at=rfc3339(NOW),
                        changes={},
                    )
                ],
            ),
            {
                "type": "events",
                "position": "p",
                "events": [
                    {
                        "type": "session.settled",
                        "session_id": "s1",
                        "revision": 2,
                        "at": rfc3339(NOW),
                        "changes": {},
                    }
                ],
            },
        ),
    ],
)
def test_message_of_the_gateway_is_written_as_documented(
    message: FromServer, text: dict[str, Any]
) -> None:
    """What the gateway says has a type and leaves out what is unset."""
    assert decode(render(message)) == text


def test_hello_of_a_session_carries_it_whole() -> None:
    """The first message on a session socket holds the session as REST shows it."""
    hello = protocol.Hello(session=render_session(busy()), position="p", heartbeat_ms=15000)

    assert decode(render(hello))["session"] == decode(encode(render_session(busy())))


def test_message_types_are_unique_within_each_socket() -> None:
    """A type says which message it is, in each direction of each kind of socket."""
    for union in (protocol.SessionSocketMessage, protocol.ObserverMessage, protocol.ClientMessage):
        tags = [kind.__struct_config__.tag for kind in union.__args__]
        assert len(tags) == len(set(tags))
