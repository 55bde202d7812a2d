import json

import pytest

from woodlot.container.state import (
    Paused,
    Running,
    Starting,
    State,
    Stopped,
    from_json,
    label,
    to_json,
)

RUNNING = Running(started_at=1.25, vm_pid=77, accelerator="kvm", ip="10.0.2.15")
STOPPED = Stopped(exit_code=137, finished_at=2.5, started_at=1.25, oom_killed=True, reason="lost")


@pytest.mark.parametrize(
    ("state", "stored"),
    [
        (Starting(), {"state": "starting"}),
        (
            RUNNING,
            {
                "state": "running",
                "started_at": 1.25,
                "vm_pid": 77,
                "accelerator": "kvm",
                "ip": "10.0.2.15",
                "networks": (),
                "ports": (),
                "network_lost": "",
                "files_lost": "",
                "restart_count": 0,
                "health": None,
            },
        ),
        (
            Paused(started_at=1.25, vm_pid=77, accelerator="kvm"),
            {
                "state": "paused",
                "started_at": 1.25,
                "vm_pid": 77,
                "accelerator": "kvm",
                "ip": "",
                "networks": (),
                "ports": (),
                "network_lost": "",
                "files_lost": "",
                "restart_count": 0,
                "health": None,
            },
        ),
        (
            STOPPED,
            {
                "state": "stopped",
                "exit_code": 137,
                "finished_at": 2.5,
                "started_at": 1.25,
                "oom_killed": True,
                "reason": "lost",
                "restart_count": 0,
                "by_user": False,
            },
        ),
    ],
    ids=["starting", "running", "paused", "stopped"],
)
def test_stored_form(state: State, stored: dict[str, object]) -> None:
    # Held as it is: containers that are on disk must stay readable.
    assert to_json(state) == stored
    assert from_json(json.loads(json.dumps(stored))) == state
    assert label(state) == stored["state"]


def test_what_an_older_record_lacks_has_a_default() -> None:
    assert from_json({"state": "stopped", "exit_code": 0, "finished_at": 2.5}) == Stopped(
        exit_code=0, finished_at=2.5
    )


@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"state": "frozen"},
        {"state": "starting", "since": 1},
        {"state": "stopped", "exit_code": 0},
    ],
)
def test_another_versions_state_is_refused(stored: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError)):
        from_json(stored)


def test_reading_leaves_the_record_alone() -> None:
    stored = to_json(RUNNING)
    from_json(stored)
    assert from_json(stored) == RUNNING
