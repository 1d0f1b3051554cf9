"""Bad input on an open socket, frames and messages: a documented answer, and nothing changed."""

import asyncio

import pytest

from tests.server.conftest import Gateway
from tests.server.talk import dial
from tests.support import S, eventually

PATHS = ("/v1/connect", "/v1/events")


def frame(opcode: int, payload: bytes = b"", *, first: int = 0x80, masked: bool = True) -> bytes:
    """Return a frame; *first* holds FIN (0x80) and the reserved bits."""
    length = len(payload)
    mask = 0x80 if masked else 0
    if length < 126:
        head = bytes([first | opcode, mask | length])
    elif length < 1 << 16:
        head = bytes([first | opcode, mask | 126]) + length.to_bytes(2)
    else:
        head = bytes([first | opcode, mask | 127]) + length.to_bytes(8)
    return head + (bytes(4) if masked else b"") + payload


@pytest.mark.parametrize(
    "name, data, code",
    [
        ("unmasked", frame(1, b"{}", masked=False), 1002),
        ("rsv1, as if compressed", frame(1, b"{}", first=0xC0), 1002),
        ("rsv2", frame(1, b"{}", first=0xA0), 1002),
        ("reserved opcode", frame(3), 1002),
        ("reserved control", frame(11), 1002),
        ("fragmented ping", frame(9, first=0), 1002),
        ("long ping", frame(9, b"x" * 126), 1002),
        ("continuation of nothing", frame(0, b"x"), 1002),
        ("new text in fragments", frame(1, b"{", first=0) + frame(1, b"}"), 1002),
        ("close of one byte", frame(8, b"\x03"), 1002),
        *(
            (f"close {code}", frame(8, code.to_bytes(2)), 1002)
            for code in (0, 999, 1004, 1005, 1006, 1015, 5000)
        ),
        ("close with bad text", frame(8, b"\x03\xe8\xff"), 1007),
        ("bad text", frame(1, b'{"type":"\xff"}'), 1007),
        ("overlong text", frame(1, b'{"type":"\xc0\xaf"}'), 1007),
        ("surrogate", frame(1, b'{"type":"\xed\xa0\x80"}'), 1007),
        ("bad text in two", frame(1, b'{"\xc3', first=0) + frame(0, b"\x28"), 1007),
        ("64 KiB and one", frame(1, b" " * 65537), 1009),
        ("a length without end", b"\x81\xff\x7f" + b"\xff" * 7 + bytes(4), 1009),
        ("fragments of 64 KiB and one", frame(1, b" " * 65530, first=0) + frame(0, b" " * 8), 1009),
    ],
)
async def test_broken_frames_end_the_connection(
    gateway: Gateway, name: str, data: bytes, code: int
) -> None:
    """What breaks the protocol is answered with its close code; the session is lost."""
    async with await dial(gateway, session="one") as ann:
        await ann.hear("hello")
        ann.socket.transport.write(data)
        assert (await ann.ends())[0] == code, name
        await eventually(lambda: gateway.node.replica.sessions["one"].state == "away")


async def test_binary_json_is_taken_like_text(gateway: Gateway) -> None:
    """JSON in a binary frame is a message as good as text, and as bad."""
    async with await dial(gateway) as ann:
        await ann.hear("hello")
        await ann.socket.send(b'{"type":"watch","ref":"1","key":"caf\xc3\xa9"}')
        assert (await ann.hear("ack"))["ref"] == "1"
        await ann.socket.send(b"{}")
        assert (await ann.hear("error"))["code"] == "bad_request"


async def test_binary_that_is_no_text_ends_as_such_text_does(gateway: Gateway) -> None:
    """A binary message that is not UTF-8 is 1007, as is such text."""
    async with await dial(gateway) as ann:
        await ann.hear("hello")
        await ann.socket.send(b'{"type":"watch","key":"\xff"}')
        code, heard = await ann.ends()

        assert code == 1007
        assert heard[-1]["reconnect"] is False


@pytest.mark.parametrize(
    "text, code",
    [
        ("", "bad_request"),
        ("{", "bad_request"),
        ("[]", "bad_request"),
        ("7", "bad_request"),
        ("{}", "bad_request"),
        ('{"type":7}', "bad_request"),
        ('{"type":"watch","key":"a","item":NaN}', "bad_request"),
        ('{"type":"need_more","ms":1e400}', "invalid"),
        ('{"type":"need_more","ms":true}', "invalid"),
        ('{"type":"need_more","ms":"1"}', "invalid"),
        ('{"type":"need_more","ms":18446744073709551616}', "invalid"),
        ('{"type":"watch","key":null}', "invalid"),
        ('{"type":"watch","key":"a\\u0000"}', "invalid"),
        ('{"type":"watch","key":"a","item":{"b":null}}', "invalid"),
        ('{"type":"watch","key":"a","item":' + '{"a":' * 40 + "1" + "}" * 41, "invalid"),
        ('{"type":"watch","key":"a","item":' + '{"a":' * 5000 + "1" + "}" * 5001, "bad_request"),
        ('{"type":"watch","key":"' + "k" * 129 + '"}', "invalid"),
        ('{"type":"update","changes":{"labels":{"":"x"}}}', "invalid"),
        ('{"type":"token"}', "invalid"),
        ('{"type":"subscribe","filter":{"colour":"red"}}', "invalid"),
        ('{"type":"heartbeat","ref":7}', "bad_request"),
    ],
)
async def test_nonsense_is_an_error_and_the_socket_stays(
    gateway: Gateway, text: str, code: str
) -> None:
    """A message that makes no sense is told so; the next one is handled as ever."""
    async with await dial(gateway, session="one") as ann:
        await ann.hear("hello")
        await ann.socket.send(text)
        assert (await ann.hear("error"))["code"] == code
        assert (await ann.ask("heartbeat"))["type"] == "ack"
        assert gateway.node.replica.sessions["one"].revision == 1


@pytest.mark.parametrize("path", PATHS)
async def test_nothing_but_nonsense_ends_the_socket(gateway: Gateway, path: str) -> None:
    """Ten messages that nobody can read within 10 s are a broken client: 4503."""
    async with await dial(gateway, path) as ann:
        await ann.find("hello")
        for _ in range(10):
            await ann.socket.send("nonsense")
        assert (await ann.bye())["code"] == 4503


async def test_names_are_shown_as_they_are(gateway: Gateway) -> None:
    """Text with line breaks, escapes, markup and emoji is data: kept, and escaped by JSON."""
    name = "a\r\nb\x1b[2J</script>\N{PILE OF POO}\N{RIGHT-TO-LEFT OVERRIDE}x"
    async with await dial(gateway, name=name) as ann, gateway.http() as http:
        hello = await ann.hear("hello")
        reply = await http.get("/v1/sessions")

        assert hello["session"]["name"] == name
        assert reply.json()["sessions"][0]["name"] == name
        assert "\n" not in reply.text


async def test_pings_are_answered_and_pongs_ignored(gateway: Gateway) -> None:
    """Protocol pings get their pong; pongs that nobody asked for do nothing."""
    async with await dial(gateway) as ann:
        await ann.hear("hello")
        for _ in range(100):
            await ann.socket.pong(b"x")
        await asyncio.wait_for(await ann.socket.ping(), 5 * S)
        assert (await ann.ask("heartbeat"))["type"] == "ack"
