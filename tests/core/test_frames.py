"""Frames and messages: what is sent as it stands on the wire, what a client may send."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.frames import (
    BINARY,
    CONTINUATION,
    PING,
    TEXT,
    Assembly,
    Caps,
    ProtocolViolation,
    frame,
)


@pytest.mark.parametrize(
    "opcode, length, head",
    [
        (TEXT, 0, b"\x81\x00"),
        (TEXT, 125, b"\x81\x7d"),
        (TEXT, 126, b"\x81\x7e\x00\x7e"),
        (BINARY, 65535, b"\x82\x7e\xff\xff"),
        (BINARY, 65536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
        (PING, 4, b"\x89\x04"),
    ],
)
def test_frame_is_what_stands_on_the_wire(opcode: int, length: int, head: bytes) -> None:
    """A frame is final, unmasked, and has the shortest length there is (RFC 6455 section 5.2)."""
    payload = b"x" * length

    assert frame(opcode, payload) == head + payload


def assembly(**caps: float) -> Assembly:
    """Return an assembly at time 0."""
    return Assembly(Caps(**caps), 0)  # type: ignore[arg-type]  # all of them are numbers


@given(st.text(), st.lists(st.integers(min_value=0, max_value=40), max_size=20))
def test_text_is_the_same_however_it_is_cut(text: str, cuts: list[int]) -> None:
    """Fragments make the text they were cut from, in the middle of a character too."""
    data = text.encode()
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts = [data[start:end] for start, end in pairwise(edges)]
    joined = assembly()
    for number, part in enumerate(parts[:-1]):
        assert joined.take(CONTINUATION if number else TEXT, part, fin=False) is None
    opcode = CONTINUATION if len(parts) > 1 else TEXT

    assert joined.take(opcode, parts[-1], fin=True) == text


def test_bytes_are_joined_and_the_next_message_is_new() -> None:
    """Binary fragments are joined, and leave nothing to what follows."""
    joined = assembly()
    joined.take(BINARY, b"a\xff", fin=False)

    assert joined.take(CONTINUATION, bytearray(b"b"), fin=True) == b"a\xffb"
    assert joined.take(TEXT, bytearray(b"{}"), fin=True) == "{}"
    assert joined.take(BINARY, b"c", fin=True) == b"c"
    assert joined.take(TEXT, b"d", fin=False) is None
    assert joined.take(CONTINUATION, b"", fin=True) == "d"


@pytest.mark.parametrize(
    "parts",
    [
        [b"\xff"],
        [b"\xc0\xaf"],
        [b"\xed\xa0\x80"],
        [b"\xf4\x90\x80\x80"],
        [b"\xc3"],
        [b"\xc3", b"\x28"],
        [b"a", b"", b"\xc3"],
    ],
)
def test_what_is_not_utf8_is_refused(parts: list[bytes]) -> None:
    """Text that is not UTF-8 ends with 1007, whole or cut."""
    joined = assembly()
    *before, last = parts
    for number, part in enumerate(before):
        joined.take(CONTINUATION if number else TEXT, part, fin=False)
    with pytest.raises(ProtocolViolation) as refused:
        joined.take(CONTINUATION if before else TEXT, last, fin=True)

    assert refused.value.code == 1007


def test_bad_text_is_refused_before_its_end() -> None:
    """A fragment that cannot become UTF-8 any more is refused at once."""
    joined = assembly()
    with pytest.raises(ProtocolViolation):
        joined.take(TEXT, b"\xff", fin=False)


def test_a_message_has_so_many_fragments() -> None:
    """The last fragment allowed ends a message; one more is 1008, also when all are empty."""
    joined = assembly(fragments=3)
    joined.take(TEXT, b"", fin=False)
    joined.take(CONTINUATION, b"", fin=False)
    assert joined.take(CONTINUATION, b"", fin=True) == ""

    joined.take(BINARY, b"", fin=False)
    joined.take(CONTINUATION, b"", fin=False)
    joined.take(CONTINUATION, b"", fin=False)
    with pytest.raises(ProtocolViolation) as refused:
        joined.take(CONTINUATION, b"", fin=True)
    assert refused.value.code == 1008


def test_a_second_has_so_many_frames() -> None:
    """A second's worth may come at once; then only what time has earned; more is 1008."""
    counted = assembly(frames_per_s=10)
    for _ in range(10):
        counted.count(0)
    counted.count(100)
    with pytest.raises(ProtocolViolation) as refused:
        counted.count(100)
    assert refused.value.code == 1008


def test_silence_earns_no_more_than_a_second() -> None:
    """However long a client was silent, it may not send more at once."""
    counted = assembly(frames_per_s=10)
    for _ in range(10):
        counted.count(3_600_000)
    with pytest.raises(ProtocolViolation):
        counted.count(3_600_000)


def test_a_steady_client_is_never_refused() -> None:
    """Who keeps to the rate may go on for ever."""
    counted = assembly(frames_per_s=10)
    for number in range(1000):
        counted.count(number * 100)
