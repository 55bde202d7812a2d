"""Where a copy goes: every case of Docker's table, and what it refuses."""

import pytest

from woodlot.container.place import Source, Target, Typed, place
from woodlot.errors import NotFoundError, StateError, WoodlotError

FILE = Source(name="f", is_directory=False)
DIRECTORY = Source(name="d", is_directory=True)
CONTENTS = Source(name="d", is_directory=True, contents=True)
ROOT = Source(name="", is_directory=True)


def target(path: str, kind: str, *, typed: str = "") -> Target:
    said = Typed(typed or path)
    return Target(
        path=path,
        exists=kind != "nothing",
        is_directory=kind == "directory",
        is_file=kind == "file",
        asserts_directory=said.asserts_directory,
        contents=said.contents,
    )


NOTHING = target("/x/n", "nothing")
NOTHING_SLASH = target("/x/n", "nothing", typed="/x/n/")
NOTHING_DOT = target("/x/n", "nothing", typed="/x/n/.")
A_FILE = target("/x/n", "file")
A_FILE_SLASH = target("/x/n", "file", typed="/x/n/")
A_DIRECTORY = target("/x/n", "directory")
A_DIRECTORY_DOT = target("/x/n", "directory", typed="/x/n/.")
A_DEVICE = target("/x/n", "device")


@pytest.mark.parametrize(
    ("source", "goal", "expected"),
    [
        (FILE, NOTHING, ("/x", "n")),
        (FILE, NOTHING_SLASH, NotFoundError),
        (FILE, NOTHING_DOT, NotFoundError),
        (FILE, A_FILE, ("/x", "n")),
        (FILE, A_FILE_SLASH, StateError),
        (FILE, A_DIRECTORY, ("/x/n", "f")),
        (FILE, A_DIRECTORY_DOT, ("/x/n", "f")),
        (FILE, A_DEVICE, StateError),
        (DIRECTORY, NOTHING, ("/x", "n")),
        (DIRECTORY, NOTHING_SLASH, ("/x", "n")),
        (DIRECTORY, NOTHING_DOT, NotFoundError),
        (DIRECTORY, A_FILE, StateError),
        (DIRECTORY, A_DIRECTORY, ("/x/n", "d")),
        (DIRECTORY, A_DEVICE, StateError),
        (CONTENTS, NOTHING, ("/x", "n")),
        (CONTENTS, A_FILE, StateError),
        (CONTENTS, A_DIRECTORY, ("/x/n", ".")),
        (ROOT, A_DIRECTORY, ("/x/n", ".")),
        (ROOT, NOTHING, ("/x", "n")),
        (FILE, target("/", "directory"), ("/", "f")),
        (FILE, target("/n", "nothing"), ("/", "n")),
    ],
)
def test_place(
    source: Source, goal: Target, expected: tuple[str, str] | type[WoodlotError]
) -> None:
    if isinstance(expected, tuple):
        assert place(source, goal) == expected
    else:
        with pytest.raises(expected, match=goal.path):
            place(source, goal)


@pytest.mark.parametrize(
    ("path", "asserts", "contents"),
    [
        ("d", False, False),
        ("d/", True, False),
        ("d/.", True, True),
        (".", True, True),
        ("..", False, False),
        ("", True, False),
        ("/", True, False),
        ("d.", False, False),
        ("d/./", True, False),
    ],
)
def test_what_an_operand_asserts(path: str, asserts: bool, contents: bool) -> None:
    operand = Typed(path)
    assert (operand.asserts_directory, operand.contents) == (asserts, contents)
