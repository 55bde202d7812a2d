"""How lists show states."""

import time

import pytest

from tests.unit.container.specs import WEB
from woodlot.aio import Container
from woodlot.cli.containers import _shown_state
from woodlot.cli.fields.container import show_status
from woodlot.container import state
from woodlot.container.lifecycle import Container as Found
from woodlot.store.store import Store

RUNNING = state.Running(started_at=time.time() - 7200, vm_pid=7, accelerator="tcg")
PAUSED = state.Paused(started_at=time.time() - 7200, vm_pid=7, accelerator="tcg")
KILLED = state.Stopped(exit_code=137, finished_at=time.time() - 7200, oom_killed=True)


@pytest.mark.parametrize(
    ("current", "shown", "dockers"),
    [
        (RUNNING, "running", "Up 2 hours"),
        (PAUSED, "paused", "Up 2 hours (Paused)"),
        (KILLED, "stopped (out of memory)", "Exited (137) 2 hours ago"),
    ],
)
def test_states(store: Store, current: state.State, shown: str, dockers: str) -> None:
    assert _shown_state(current) == shown
    assert show_status(Container(store, Found(spec=WEB, state=current))) == dockers
