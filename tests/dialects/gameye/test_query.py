"""The query of Gameye's list: what its brackets mean, and what is no query."""

import pytest

from gateway.core.errors import Invalid
from gateway.dialects.gameye.query import SessionListQuery, read_list, read_parameters
from gateway.dialects.gameye.render import GameSession, HomeAddress, game_session
from gateway.dialects.gameye.schema import ArtifactParameters, EncodingParameters, LogParameters
from tests.nodes import blank


def seen(**facts: object) -> GameSession:
    """Return a session in Gameye's words."""
    gameye = {"image": "arena", "tag": "1.4.2", "location": "eu-west-1"}
    found = {"labels": {"mode": "duel", "elo": "low"}, "attributes": {"gameye": gameye}, **facts}
    return game_session(blank("s1", **found), HomeAddress("192.0.2.44", 443), 0)


def violations(error: Invalid) -> list[tuple[str, str]]:
    """Return what an error blames."""
    return [(found.field, found.description) for found in error.extra["violations"]]


@pytest.mark.parametrize(
    "pairs,expected",
    [
        ([("filter[mode]", "duel")], True),
        ([("filter[mode]", "Duel")], False),
        ([("filter[Mode]", "duel")], False),
        ([("filter[mode]", "duel"), ("filter[elo]", "low")], True),
        ([("filter[mode]", "duel"), ("filter[elo]", "high")], False),
        ([("filter[mode]", "duel"), ("filter[mode]", "team")], False),
        ([("filter[none]", "")], False),
        ([("filter[]", "mode")], True),
        ([("filter[0]", "mode"), ("filter[1]", "none")], False),
        ([("filterNot[mode]", "duel")], False),
        ([("filterNot[mode]", "team"), ("filterNot[elo]", "low")], False),
        ([("filterNot[mode]", "team"), ("filterNot[none]", "duel")], True),
        ([("filterNot[]", "mode")], False),
        ([("filter[location]", "eu-west-1")], True),
        ([("filter[region]", "eu-west-1")], True),
        ([("filter[tag]", "1.4.2"), ("filter[image]", "arena")], True),
        ([("filter[id]", "s2")], False),
        ([("filter[host]", "192.0.2.44")], True),
        ([("filter[status]", "created")], True),
        ([("filterNot[status]", "created")], False),
        ([("location", "eu-west-1"), ("image", "arena"), ("tag", "1.4.2")], True),
        ([("location", "eu-west-2")], False),
        ([("image", "arena2")], False),
        ([("tag", "1.4")], False),
        ([("host", "192.0.2.45")], False),
        ([("Filter", "Object"), ("limit", "3"), ("mode", "team")], True),
    ],
)
def test_filter_finds_what_it_says(pairs: list[tuple[str, str]], expected: bool) -> None:
    """Filters are ANDed, case-sensitive, and about labels before fields; what is unknown is not."""
    assert read_list(pairs).matches(seen()) == expected


def test_label_goes_before_the_field_of_its_name() -> None:
    """A label called ``tag`` is what ``filter[tag]`` compares, not the build."""
    labelled = seen(labels={"tag": "blue"})

    assert read_list([("filter[tag]", "blue")]).matches(labelled)
    assert not read_list([("filter[tag]", "1.4.2")]).matches(labelled)
    assert read_list([("tag", "1.4.2")]).matches(labelled)


@pytest.mark.parametrize(
    "pairs,expected",
    [
        ([("playerCount[lt]", "3")], [0, 1, 2]),
        ([("playerCount[gt]", "1")], [2, 3]),
        ([("playerCount[lt]", "3"), ("playerCount[gt]", "0")], [1, 2]),
        ([("playerCount[gt]", "-1")], [0, 1, 2, 3]),
    ],
)
def test_player_count_is_compared_strictly(
    pairs: list[tuple[str, str]], expected: list[int]
) -> None:
    """Both bounds are exclusive and may be combined."""
    query = read_list(pairs)

    assert expected == [
        count
        for count in range(4)
        if query.matches(seen(members=tuple(str(number) for number in range(count))))
    ]


@pytest.mark.parametrize(
    "text,expected",
    [("true", True), ("True", True), ("1", True), ("false", False), ("0", False), ("", False)],
)
def test_flag_is_written_in_many_ways(text: str, expected: bool) -> None:
    """What clients of any language write for true and false is understood."""
    assert read_list([("all", text)]).all == expected
    log = read_parameters([("id", "s1"), ("follow", text)], LogParameters)
    assert log.follow == expected


@pytest.mark.parametrize(
    "name,text,said",
    [
        ("all", "maybe", "must be true or false"),
        ("playerCount[lt]", "eight", "must be an integer"),
        ("playerCount[gt]", "1.5", "must be an integer"),
        ("playerCount[lt]", "", "must be an integer"),
        ("playerCount[lt]", "9" * 19, "must be an integer"),
        ("playerCount[eq]", "8", "must be playerCount[gt|lt]=<value>"),
        ("playerCount", "8", "must be playerCount[gt|lt]=<value>"),
        ("filter", "mode=duel", "must be filter[<key>]=<value>"),
        ("filter[mode", "duel", "must be filter[<key>]=<value>"),
        ("filter[a][b]", "duel", "must be filter[<key>]=<value>"),
        ("filterNot", "duel", "must be filterNot[<key>]=<value>"),
        ("encoding", "xml", "must be object or string"),
    ],
)
def test_what_cannot_be_understood_is_blamed(name: str, text: str, said: str) -> None:
    """A known parameter in an unknown form is a violation that names it."""
    with pytest.raises(Invalid) as caught:
        read_list([(name, text)])

    assert violations(caught.value) == [(name, said)]


def test_every_violation_is_told_at_once() -> None:
    """One answer lists all that is wrong with a query."""
    with pytest.raises(Invalid) as caught:
        read_list([("all", "maybe"), ("image", "a"), ("image", "b"), ("encoding", "xml")])

    assert [field for field, _ in violations(caught.value)] == ["all", "image", "encoding"]


def test_violations_are_bounded() -> None:
    """However much is wrong, an answer stays small."""
    with pytest.raises(Invalid) as caught:
        read_list([(f"filter[{number}", "x") for number in range(100)])

    assert len(violations(caught.value)) == 32


def test_required_parameters_are_blamed_when_missing() -> None:
    """A missing or empty parameter is a violation each."""
    assert read_parameters([("id", "s1")], LogParameters).id == "s1"
    with pytest.raises(Invalid) as caught:
        read_parameters([("path", "")], ArtifactParameters)

    assert violations(caught.value) == [("session", "is required"), ("path", "is required")]


def test_encoding_is_objects_unless_asked() -> None:
    """Without the parameter, maps are maps."""
    assert read_parameters([], EncodingParameters).encoding == "object"
    for text in ("object", "string"):
        assert read_parameters([("encoding", text)], EncodingParameters).encoding == text


def test_index_lets_through_what_matches() -> None:
    """The fast filter is about labels that are no fields, and never stricter than the query."""
    query = read_list([("filter[mode]", "duel"), ("filter[tag]", "1"), ("filter[]", "elo")])

    assert query.index.labels == {"mode": "duel"}
    assert SessionListQuery().index.labels == {}
