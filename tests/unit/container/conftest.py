"""A store of the test's own, and what a container is made from."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.container.specs import quiet
from woodlot.paths import Paths
from woodlot.store.store import Store


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    quiet(monkeypatch, tmp_path)


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[Paths]:
    # Paths of sockets are short, pytest's directories are not.
    with tempfile.TemporaryDirectory(prefix="wl-") as runtime:
        yield Paths(data=tmp_path / "data", runtime=Path(runtime))


@pytest.fixture
def store(paths: Paths) -> Iterator[Store]:
    store = Store(paths)
    yield store
    store.close()
