import dataclasses
import os

import pytest

from tests.unit.container.specs import WEB
from woodlot.container import lifecycle, state
from woodlot.container.restart import parse_policy
from woodlot.container.update import Update, build_update, update
from woodlot.errors import ConfigError, StateError
from woodlot.store.store import Store
from woodlot.units import MIB

STOPPED = state.Stopped(exit_code=0, finished_at=1.0)


def test_what_is_asked_for() -> None:
    assert build_update(cpus=0.5, memory="64m", restart_policy="on-failure:2") == Update(
        cpus=0.5, memory_bytes=64 * MIB, restart=parse_policy("on-failure:2")
    )
    assert build_update(cpus=None, memory="64m", restart_policy=None) == Update(
        memory_bytes=64 * MIB
    )


@pytest.mark.parametrize(
    ("cpus", "memory", "policy", "message"),
    [
        (None, None, None, "nothing is to be updated"),
        (float(os.cpu_count() or 1) + 1, None, None, "--cpus must be"),
        (0, None, None, "--cpus must be"),
        (None, "1m", None, "--memory must be"),
        (None, "much", None, "--memory must be"),
        (None, None, "sometimes", "--restart cannot be"),
    ],
)
def test_what_cannot_be(
    cpus: float | None, memory: str | None, policy: str | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_update(cpus=cpus, memory=memory, restart_policy=policy)


async def test_one_that_is_stopped_has_it_at_its_next_start(store: Store) -> None:
    os.close(lifecycle.reserve(store, WEB))
    store.containers.update_state(WEB.id, state.to_json(STOPPED))
    wanted = Update(cpus=1, memory_bytes=1 << 50, restart=parse_policy("on-failure:2"))
    await update(store, lifecycle.find(store, "web"), wanted)
    assert lifecycle.find(store, "web").spec == dataclasses.replace(
        WEB, cpus=1, memory_bytes=1 << 50, restart=parse_policy("on-failure:2")
    )
    await update(store, lifecycle.find(store, "web"), Update(restart=parse_policy("no")))
    assert str(lifecycle.find(store, "web").spec.restart) == "no"


async def test_one_that_is_busy_stays(store: Store) -> None:
    os.close(lifecycle.reserve(store, WEB))
    store.containers.update_state(WEB.id, state.to_json(STOPPED))
    found = lifecycle.find(store, "web")
    lock = lifecycle.keep_stopped(store, found)
    with pytest.raises(StateError, match="container web is being"):
        await update(store, found, Update(cpus=1))
    os.close(lock)
    assert lifecycle.find(store, "web").spec == WEB


async def test_what_is_removed_at_its_end_has_no_policy(store: Store) -> None:
    os.close(lifecycle.reserve(store, dataclasses.replace(WEB, remove=True), starts=False))
    with pytest.raises(ConfigError, match="--restart conflicts with --rm"):
        await update(store, lifecycle.find(store, "web"), Update(restart=parse_policy("always")))
