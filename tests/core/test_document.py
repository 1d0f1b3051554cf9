"""Documents and messages: where they are kept, and their text form."""

from msgspec.json import decode, encode

from gateway.core.document import Document, Message, Recipients


def test_document_is_kept_apart_from_sessions() -> None:
    """A document's place has a slash, which no session id can have."""
    assert Document(kind="neko.member", key="ann").field == "neko.member/ann"


def test_message_and_document_survive_their_text() -> None:
    """What is read back is what was written; what is unset takes no room."""
    document = Document(kind="k", key="x", revision=3, body={"a": [1, None]})
    message = Message(to=Recipients(session="s1"), topic="t", body={"a": None}, sender="ann")

    assert decode(encode(document), type=Document) == document
    assert decode(encode(message), type=Message) == message
    assert encode(Message(to=Recipients(), topic="t")) == b'{"to":{},"topic":"t"}'
