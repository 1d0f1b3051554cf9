"""Conditional requests: polling that costs nothing, and changes that are judged first."""

import httpx2
import pytest

from gateway.core.command import Update
from gateway.core.model import Session
from gateway.dialects.maxscale.conditions import KNOWN_MAX, ValidatorCache, is_unmodified
from tests.dialects.maxscale.conftest import MaxScale, bearer

LATER = "Sat, 03 Jan 2026 00:00:00 GMT"
EARLIER = "Thu, 01 Jan 2026 00:00:00 GMT"


@pytest.fixture
async def session(maxscale: MaxScale) -> Session:
    """A session without a connection."""
    return await maxscale.open("one", account="app_rw")


@pytest.mark.parametrize("path", ["/v1/sessions/1", "/v1/sessions", "/v1/services?page[size]=2"])
async def test_poll_of_what_did_not_change_is_304(
    maxscale: MaxScale, http: httpx2.AsyncClient, session: Session, path: str
) -> None:
    """A tag stays while nothing happens, though ages grow, and changes with the session."""
    first = await http.get(path)
    again = await http.get(path, headers={"If-None-Match": first.headers["ETag"]})
    await maxscale.open("two")
    await maxscale.node.apply(session.id, Update(name="other"))
    after = await http.get(path, headers={"If-None-Match": first.headers["ETag"]})

    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    assert after.status_code == 200
    assert after.headers["ETag"] != first.headers["ETag"]


async def test_sign_of_the_client_changes_the_tag(
    maxscale: MaxScale, http: httpx2.AsyncClient, session: Session
) -> None:
    """Who polls for idle sessions hears that one is not idle any more."""
    first = await http.get("/v1/sessions/1")
    maxscale.node.touch(session.id)
    after = await http.get("/v1/sessions/1", headers={"If-None-Match": first.headers["ETag"]})

    assert after.status_code == 200


async def test_date_of_the_last_change_is_never_before_it(
    maxscale: MaxScale, http: httpx2.AsyncClient, session: Session
) -> None:
    """A date answers 304 only when nothing can have changed since, within its second included."""
    first = await http.get("/v1/sessions/1")
    same_second = await http.get(
        "/v1/sessions/1", headers={"If-Modified-Since": first.headers["Last-Modified"]}
    )
    maxscale.wall.now_ms += 5000
    second = await http.get("/v1/sessions/1")
    unchanged = await http.get(
        "/v1/sessions/1", headers={"If-Modified-Since": second.headers["Last-Modified"]}
    )
    await maxscale.node.apply(session.id, Update(name="other"))
    changed = await http.get(
        "/v1/sessions/1", headers={"If-Modified-Since": second.headers["Last-Modified"]}
    )

    assert first.headers["Last-Modified"] == "Fri, 02 Jan 2026 03:04:05 GMT"
    assert same_second.status_code == 200
    assert second.headers["Last-Modified"] == "Fri, 02 Jan 2026 03:04:06 GMT"
    assert unchanged.status_code == 304
    assert changed.status_code == 200
    assert changed.headers["Last-Modified"] == "Fri, 02 Jan 2026 03:04:10 GMT"


JUDGED = [
    ({"If-Modified-Since": LATER}, 304),
    ({"If-Modified-Since": EARLIER}, 200),
    ({"If-Modified-Since": "yesterday"}, 200),
    ({"If-Modified-Since": "Mon, 99 Jan 99999999999999999999 00:00:00 GMT"}, 200),
    ({"If-Modified-Since": LATER, "If-None-Match": '"x"'}, 200),
    ({"If-None-Match": "*"}, 304),
    ({"If-None-Match": '"x", W/"y"'}, 200),
    ({"If-Match": '"x"'}, 412),
    ({"If-Match": "*"}, 200),
    ({"If-Match": "1"}, 200),
    ({"If-Match": '"x", "1-0"'}, 200),
    ({"If-Unmodified-Since": LATER}, 200),
    ({"If-Unmodified-Since": EARLIER}, 412),
    ({"If-Unmodified-Since": EARLIER, "If-Match": '"1-0"'}, 200),
    ({"If-Match": '"1-0"', "If-None-Match": "*"}, 304),
]


async def test_conditions_have_an_order(http: httpx2.AsyncClient, session: Session) -> None:
    """Each condition is judged as HTTP says, tags before dates; a bad date is none."""
    assert session.revision == 1
    for headers, status in JUDGED:
        response = await http.get("/v1/sessions/1", headers=headers)

        assert response.status_code == status, headers
        assert ("errors" in response.text) == (status == 412)


async def test_tag_of_a_collection_can_be_required(
    http: httpx2.AsyncClient, session: Session
) -> None:
    """A list has a tag like everything else."""
    assert session.revision == 1
    tag = (await http.get("/v1/sessions")).headers["ETag"]

    assert (await http.get("/v1/sessions", headers={"If-Match": tag})).status_code == 200
    assert (await http.get("/v1/sessions", headers={"If-Match": '"x"'})).status_code == 412


async def test_304_comes_before_nothing_else(
    maxscale: MaxScale, http: httpx2.AsyncClient, session: Session
) -> None:
    """A conditional GET that is not 304 is filtered, paged and cut like any other."""
    assert session.revision == 1
    await maxscale.open("two", account="other")
    query = '/v1/sessions?filter=/attributes/user="other"&page[size]=1&fields[sessions]=user'
    response = await http.get(query, headers={"If-None-Match": '"x"'})

    assert response.json()["meta"] == {"total": 1}
    assert response.json()["data"][0]["attributes"] == {"user": "other"}
    assert response.headers["ETag"]


@pytest.mark.parametrize(
    "condition",
    [
        {"If-Match": '"x"'},
        {"If-Match": '"0-0"'},
        {"If-None-Match": "*"},
        {"If-Unmodified-Since": EARLIER},
    ],
)
async def test_failed_condition_changes_nothing(
    maxscale: MaxScale, http: httpx2.AsyncClient, session: Session, condition: dict[str, str]
) -> None:
    """Conditions are judged before the deed: 412 means that nothing was done."""
    for method, path in (
        ("DELETE", "/v1/sessions/1"),
        ("DELETE", "/v1/sessions/1?ttl=5"),
        ("PATCH", "/v1/sessions/1"),
        ("PATCH", "/v1/sessions/1/relationships/filters"),
        ("POST", "/v1/sessions/1/restart"),
    ):
        response = await http.request(method, path, headers=condition, content=b'{"data":[]}')

        assert response.status_code == 412
        assert maxscale.node.replica.sessions[session.id] == session


async def test_tag_of_a_get_fits_the_delete_after_it(
    maxscale: MaxScale, http: httpx2.AsyncClient, session: Session
) -> None:
    """Who read a session may end it if it did not change; what its client said does not count."""
    tag = (await http.get("/v1/sessions/1")).headers["ETag"]
    maxscale.node.touch(session.id)
    body = {"data": {"attributes": {"parameters": {"log_info": True}}}}
    changed = await http.patch("/v1/sessions/1", json=body, headers={"If-Match": tag})
    stale = await http.delete("/v1/sessions/1", headers={"If-Match": tag})
    fresh = (await http.get("/v1/sessions/1")).headers["ETag"]
    done = await http.delete("/v1/sessions/1", headers={"If-Match": fresh})

    assert (changed.status_code, stale.status_code, done.status_code) == (200, 412, 200)


async def test_head_is_get_without_the_body(
    maxscale: MaxScale, http: httpx2.AsyncClient, session: Session
) -> None:
    """HEAD has the tag of GET, for one session and for lists short and long."""
    assert session.revision == 1
    for path in ("/v1/sessions/1", "/v1/sessions?pretty=no"):
        got, head = await http.get(path), await http.head(path)

        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["ETag"] == got.headers["ETag"]
        assert int(head.headers["Content-Length"]) > 500
    for number in range(120):
        await maxscale.open(f"s{number}")
    long = await http.head("/v1/sessions")
    assert (long.status_code, long.content) == (200, b"")


async def test_callers_do_not_share_dates(maxscale: MaxScale, session: Session) -> None:
    """What one caller has seen says nothing about when another could have."""
    assert session.revision == 1
    async with maxscale.http() as admin, maxscale.http(bearer("ws-1")) as other:
        assert (await admin.get("/v1/sessions")).status_code == 200
        maxscale.wall.now_ms += 5000
        shown = await other.get("/v1/sessions")

    assert shown.headers["Last-Modified"] == "Fri, 02 Jan 2026 03:04:10 GMT"


def test_dates_of_many_representations_are_bounded() -> None:
    """The oldest date is forgotten, and then starts anew: later, never earlier."""
    seen = ValidatorCache()
    for number in range(KNOWN_MAX + 1):
        seen.validators(b"%d" % number, "1-0", 1000)

    assert seen.validators(b"0", "1-0", 9000).seen_ms == 9000
    assert seen.validators(b"%d" % KNOWN_MAX, "1-0", 9000).seen_ms == 1000
    assert not is_unmodified({}, seen.validators(b"0", "1-0", 9000), is_read=True)
