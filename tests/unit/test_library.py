"""The library, as far as it works without a virtual machine."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from woodlot import Client, aio
from woodlot.errors import ConfigError
from woodlot.paths import find_paths
from woodlot.store.store import Store


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # Short: sockets' paths are made of it.
    with tempfile.TemporaryDirectory(prefix="wl-") as directory:
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        yield Path(directory) / "root"


def happen(root: Path, *actions: str) -> None:
    store = Store(find_paths(root))
    for action in actions:
        store.events.add("container", action, "abc", {"name": "web"})


def test_events_that_were(root: Path) -> None:
    happen(root, "create", "start", "die")
    with Client(root) as client:
        told = client.events(since=0, until=time.time(), filters={"event": ["start", "die"]})
        assert [event.action for event in told] == ["start", "die"]
        with pytest.raises(ConfigError, match="colour"):
            next(client.events(filters={"colour": "red"}))


def test_events_that_come(root: Path) -> None:
    with Client(root) as client:
        coming = client.events(since=time.time())
        happen(root, "create", "start")
        assert [next(coming).action, next(coming).action] == ["create", "start"]
        coming.close()


async def test_events_of_the_library_for_asyncio(root: Path) -> None:
    async with aio.Client(root) as client:
        began = time.time()
        happen(root, "create")
        async with aclosing(client.events(since=began, filters={"container": "web"})) as told:
            event = await anext(told)
        assert (event.type, event.id) == ("container", "abc")
