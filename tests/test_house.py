"""Rules of the house that no linter knows: layers, exports, small files, told promises."""

import ast
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gateway

ROOT = Path(__file__).parent.parent
LINES_A_FILE = 400  # what a reader can hold in mind; a longer file is two files
ONE_FILE = {"gateway/web/client.js"}  # pages load it as one module, without a build step

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(gateway.__path__, "gateway.")
    if module.name != "gateway.__main__"  # importing it runs it
)
SOURCES = sorted(
    path
    for folder in ("gateway", "tests", "scripts", "deploy")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".css", ".html", ".js", ".lua", ".py"} and ".cache" not in path.parts
)
TEXTS = [
    path
    for path in (
        *SOURCES,
        *ROOT.glob("[!.]*.*"),
        *(ROOT / "gateway").rglob("*.md"),
        *(ROOT / "scripts").iterdir(),
        ROOT / ".ci" / "run",
    )
    if path.is_file()
]


def name(path: Path) -> str:
    """A file as seen from the top of the repository."""
    return str(path.relative_to(ROOT))


def promises(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every test in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith(
            "test_"
        ):
            yield node


@pytest.mark.timeout(60)
def test_imports_go_down_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The import contracts of pyproject.toml hold."""
    monkeypatch.chdir(ROOT)

    # In a process of its own: it configures logging, and would silence the loggers of other tests.
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", MODULES)
def test_module_exports_what_it_lists(path: str) -> None:
    """What a module lists in ``__all__`` is there, and listed once."""
    module = importlib.import_module(path)
    exported = getattr(module, "__all__", [])

    assert [known for known in exported if not hasattr(module, known)] == []
    assert len(exported) == len(set(exported))


def test_every_source_file_says_why_it_exists() -> None:
    """A file that holds anything begins with a docstring."""
    silent = [
        name(path)
        for path in SOURCES
        if path.suffix == ".py"
        if (tree := ast.parse(path.read_text())).body and not ast.get_docstring(tree)
    ]

    assert silent == []


def test_what_is_not_here_is_somewhere() -> None:
    """The modules and folders that a docstring sends its reader to exist."""
    here = {path.stem for path in (ROOT / "gateway").rglob("*")}
    lost: list[str] = []
    for path in (ROOT / "gateway").rglob("*.py"):
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        _, _, elsewhere = text.partition("Not here:")
        lost += [
            f"{name(path)}: {place}"
            for place in re.findall(r"``([a-z_.]+)``", elsewhere)
            if not here.issuperset(place.split("."))
        ]

    assert lost == []


def test_public_class_names_are_unique() -> None:
    """One name means one thing: no two modules of the gateway define the same public class."""
    places: dict[str, list[str]] = {}
    for path in (ROOT / "gateway").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(name(path))

    assert {known: found for known, found in places.items() if len(found) > 1} == {}


def test_every_room_is_in_the_architecture() -> None:
    """The page for people who change the code names each package and module at the top."""
    page = (ROOT / "gateway" / "README.md").read_text()
    rooms = [
        path.name
        for path in (ROOT / "gateway").iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").exists()) and "__" not in path.name
    ]

    assert [room for room in rooms if f"`{room}" not in page] == []


def test_links_between_the_pages_of_the_package_lead_somewhere() -> None:
    """What a page below ``gateway/`` points to is there."""
    broken = [
        (name(path), link)
        for path in (ROOT / "gateway").rglob("*.md")
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text())
        if not (path.parent / link).exists()
    ]

    assert broken == []


def test_every_decision_can_be_linked_to() -> None:
    """A decision has a number of its own, the same in its name and title, and its three parts."""
    pages = sorted((ROOT / "gateway" / "docs" / "decisions").glob("*.md"))
    numbers = [path.name[:4] for path in pages]
    texts = [path.read_text() for path in pages]
    parts = ("Context", "Decision", "Alternatives")

    assert len(set(numbers)) == len(numbers)
    assert [
        path.name
        for path, text in zip(pages, texts, strict=True)
        if not text.startswith(f"# {path.name[:4]}: ") or not all(part in text for part in parts)
    ] == []


def test_every_source_file_is_short_enough_to_read() -> None:
    """No source file is longer than a reader can hold in mind."""
    lines = {name(path): len(path.read_text().splitlines()) for path in SOURCES}
    long = {path: count for path, count in lines.items() if count > LINES_A_FILE}

    assert {path: long[path] for path in long.keys() - ONE_FILE} == {}


def test_every_test_states_its_promise() -> None:
    """Each test has a docstring whose first paragraph is a whole sentence."""
    silent = [
        f"{name(path)}::{test.name}"
        for path in SOURCES
        if path.name.startswith("test_")
        for test in promises(path)
        if not (ast.get_docstring(test) or "").partition("\n\n")[0].endswith(".")
    ]

    assert silent == []


def test_no_file_names_a_place_of_one_machine() -> None:
    """Nobody's home and no checkout's place is written into a file."""
    places = [r"/(?:home|Users)/\w"]
    if len(ROOT.parts) > 2:  # a checkout right below the root may share its name with anything
        places.append(re.escape(str(ROOT)) + r"(?![\w.-])")
    place = re.compile("|".join(places))

    assert [name(path) for path in TEXTS if place.search(path.read_text())] == []


def test_scripts_can_be_run() -> None:
    """Every script that is not a helper has its run bit and says in one line what it is for."""
    scripts = [path for path in (ROOT / "scripts").iterdir() if not path.name.startswith("_")]

    assert scripts
    for path in (*scripts, ROOT / ".ci" / "run"):
        assert os.access(path, os.X_OK), path
        assert path.read_text().splitlines()[1].startswith(("# ", '"""')), path


def test_doors_reach_through_nothing() -> None:
    """What a door wants of the node it asks the node for, not one of the node's parts."""
    parts = re.compile(r"\bnode\.(clock|deadlines|hub|lease|replica|replicator|store)\b")
    rooms = ("api", "connections", "dialects", "http", "realtime")
    found = [
        (str(path), line)
        for room in rooms
        for path in sorted((ROOT / "gateway" / room).rglob("*.py"))
        for line in path.read_text().splitlines()
        if parts.search(line)
    ]

    assert found == []
