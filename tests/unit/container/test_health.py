"""Docker's rules for health checks."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from woodlot.container.health import HealthRequest, build_spec, judge, watch
from woodlot.container.spec import ExecSpec, HealthSpec
from woodlot.container.state import Health, Probe
from woodlot.errors import ConfigError, StateError, WoodlotError
from woodlot.guest.client import Process
from woodlot.guest.said import Exited, Output, Started

S = 10**9
SPEC = HealthSpec(args=("check",), interval_s=0.001, timeout_s=5, retries=2)


@pytest.mark.parametrize(
    ("request_", "image", "expected"),
    [
        (HealthRequest(), None, None),
        (HealthRequest(), {}, None),
        (HealthRequest(), {"Test": ["NONE"]}, None),
        (HealthRequest(), {"Test": []}, None),
        (HealthRequest(), {"Test": "true"}, None),
        (HealthRequest(), {"Test": ["CMD"]}, None),
        (HealthRequest(), {"Test": ["CMD", "a", "b"]}, HealthSpec(args=("a", "b"))),
        (
            HealthRequest(),
            {"Test": ["CMD-SHELL", "a b"]},
            HealthSpec(args=("/bin/sh", "-c", "a b")),
        ),
        (HealthRequest(disabled=True), {"Test": ["CMD", "a"]}, None),
        (HealthRequest(command="x"), {"Test": ["NONE"]}, HealthSpec(args=("/bin/sh", "-c", "x"))),
        (
            HealthRequest(),
            {
                "Test": ["CMD", "a"],
                "Interval": 7 * S,
                "Timeout": 8 * S,
                "StartPeriod": 9 * S,
                "StartInterval": S // 2,
                "Retries": 4,
            },
            HealthSpec(
                args=("a",),
                interval_s=7,
                timeout_s=8,
                start_period_s=9,
                start_interval_s=0.5,
                retries=4,
            ),
        ),
        # The user's word counts, one by one; what an image has no right to say is left out.
        (
            HealthRequest(interval="1m30s", retries=9),
            {
                "Test": ["CMD", "a"],
                "Interval": 7 * S,
                "Timeout": 0,
                "StartPeriod": -1,
                "Retries": "4",
            },
            HealthSpec(args=("a",), interval_s=90, retries=9),
        ),
    ],
)
def test_how_it_is_asked(
    request_: HealthRequest, image: dict[str, object] | None, expected: HealthSpec | None
) -> None:
    request_.check()
    assert build_spec(request_, image) == expected


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"interval": "often"}, "--health-interval must be a duration"),
        ({"timeout": "-1s"}, "--health-timeout must be a duration"),
        ({"start_period": "5"}, "--health-start-period must be a duration"),
        ({"start_interval": "10us"}, "--health-start-interval must be at least 1ms"),
        ({"retries": 0}, "--health-retries must be at least 1"),
        ({"disabled": True, "command": "x"}, "--no-healthcheck conflicts"),
    ],
)
def test_what_cannot_be_asked(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HealthRequest(**asked).check()


def probe(code: int) -> Probe:
    return Probe(started_at=1, finished_at=2, exit_code=code, output="")


def test_failures_in_a_row_make_it_unhealthy_and_one_success_well() -> None:
    health, told = Health(), list[tuple[str, int]]()
    for code in (1, 0, 1, -1, 1, 0, 7):
        health = judge(health, probe(code), SPEC, starting=False)
        told.append((health.status, health.failing_streak))
    assert told == [
        ("starting", 1),
        ("healthy", 0),
        ("healthy", 1),
        ("unhealthy", 2),
        ("unhealthy", 3),
        ("healthy", 0),
        ("healthy", 1),
    ]
    assert [one.exit_code for one in health.log] == [1, -1, 1, 0, 7]


def test_failures_do_not_count_while_it_starts_unless_it_was_well() -> None:
    health = Health()
    for _ in range(5):
        health = judge(health, probe(1), SPEC, starting=True)
    assert (health.status, health.failing_streak, len(health.log)) == ("starting", 0, 5)
    health = judge(health, probe(0), SPEC, starting=True)
    for _ in range(2):
        health = judge(health, probe(1), SPEC, starting=True)
    assert health.status == "unhealthy"


class Container:
    """Runs the probes that the test has written down."""

    def __init__(self, *answers: tuple[bytes, int | None] | WoodlotError) -> None:
        self.answers = list(answers)
        self.specs: list[ExecSpec] = []
        self.left = 0

    @asynccontextmanager
    async def run(self, spec: ExecSpec) -> AsyncGenerator[Process]:
        self.specs.append(spec)
        answer = self.answers.pop(0)
        if isinstance(answer, WoodlotError):
            raise answer
        try:
            yield cast("Process", _Answer(*answer))
        finally:
            self.left += 1


class _Answer:
    def __init__(self, text: bytes, code: int | None) -> None:
        self.text, self.code = text, code

    async def events(self) -> AsyncGenerator[Started | Output | Exited]:
        yield Started(pid=1)
        for start in range(0, len(self.text), 1000):
            yield Output(data=self.text[start : start + 1000], stderr=bool(start % 2000))
        if self.code is None:
            await asyncio.sleep(3600)
        yield Exited(code=self.code or 0, signal=0, oom_killed=False)


async def watched(
    container: Container, spec: HealthSpec, *, ready: asyncio.Event | None = None
) -> list[Health]:
    told: list[Health] = []
    count = len(container.answers)
    done = asyncio.Event()

    def tell(health: Health) -> None:
        told.append(health)
        if len(told) == count:
            done.set()

    if ready is None:
        ready = asyncio.Event()
        ready.set()
    watching = asyncio.create_task(watch(spec, container.run, tell, ready=ready.wait))
    async with asyncio.timeout(20):
        await done.wait()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    return told


async def test_it_is_asked_again_and_again() -> None:
    container = Container((b"ok", 0), (b"no", 3), StateError("container web is paused"), (b"", 0))
    told = await watched(container, SPEC)
    assert [health.status for health in told] == ["healthy", "healthy", "unhealthy", "healthy"]
    assert [(one.exit_code, one.output) for one in told[-1].log] == [
        (0, "ok"),
        (3, "no"),
        (-1, "container web is paused"),
        (0, ""),
    ]
    assert {spec.args for spec in container.specs} == {("check",)}
    assert len({spec.id for spec in container.specs}) == 4


async def test_one_that_stands_still_is_not_asked() -> None:
    container, ready = Container((b"", 0)), asyncio.Event()
    watching = asyncio.create_task(watched(container, SPEC, ready=ready))
    await asyncio.sleep(0.05)
    assert not container.specs
    ready.set()
    assert [health.status for health in await watching] == ["healthy"]


async def test_a_probe_that_takes_too_long_or_says_too_much() -> None:
    container = Container((b"hanging", None), (b"x" * 10_000, 0))
    spec = HealthSpec(args=("check",), interval_s=0.001, timeout_s=0.05, retries=1)
    told = await watched(container, spec)
    assert [health.status for health in told] == ["unhealthy", "healthy"]
    slow, long = told[-1].log
    assert (slow.exit_code, slow.output) == (-1, "the health check took longer than 0.05 s")
    assert (long.exit_code, len(long.output)) == (0, 4096)
    assert container.left == 2


async def test_it_is_asked_more_often_while_it_starts() -> None:
    spec = HealthSpec(
        args=("check",), interval_s=3600, start_interval_s=0.001, start_period_s=3600, retries=1
    )
    told = await watched(Container((b"", 1), (b"", 1), (b"", 0)), spec)
    assert [health.status for health in told] == ["starting", "starting", "healthy"]


async def test_a_probe_that_is_killed_with_its_container_is_no_failure() -> None:
    container = Container((b"", 0), (b"", 137), (b"", 0))
    told: list[Health] = []
    second = asyncio.Event()

    @asynccontextmanager
    async def run(spec: ExecSpec) -> AsyncGenerator[Process]:
        async with container.run(spec) as process:
            yield process
        if len(container.answers) == 1:
            second.set()

    async def ready() -> None: ...

    watching = asyncio.create_task(watch(SPEC, run, told.append, ready=ready))
    async with asyncio.timeout(20):
        await second.wait()
    # The container has ended.
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert [health.status for health in told] == ["healthy"]
