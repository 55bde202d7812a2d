"""Health checks: how a container is asked whether it is well, and what follows from the answers; Docker's rules.

Source: Docker's documentation of ``HEALTHCHECK``; the image's ``Healthcheck`` as in Docker's image-spec v1.2.
"""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from woodlot.container.spec import ExecSpec, HealthSpec
from woodlot.container.state import KILLED_EXIT_CODE, Health, Probe
from woodlot.errors import ConfigError, WoodlotError
from woodlot.units import parse_duration
from woodlot.values import dataclass

if TYPE_CHECKING:
    from woodlot.guest.client import Process

log = logging.getLogger(__name__)

_MAX_OUTPUT_BYTES = 4096
_MAX_PROBES = 5
_SHELL = ("/bin/sh", "-c")
_LEAST_S = 0.001
# A container's end kills its probe, a moment before the end is known and we are cancelled: that is no bad health.
_END_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthRequest:
    """What the user asks of the health check; None leaves it to the image, then to Docker's defaults."""

    command: str | None = None
    interval: str | None = None
    timeout: str | None = None
    retries: int | None = None
    start_period: str | None = None
    start_interval: str | None = None
    disabled: bool = False

    def check(self) -> None:
        """Find what is wrong.

        Raises:
            ConfigError: The first thing that is.
        """
        if self.disabled and any(
            one is not None
            for one in (
                self.command, self.interval, self.timeout, self.retries, self.start_period, self.start_interval,
            )
        ):  # fmt: skip
            raise ConfigError(
                "--no-healthcheck conflicts with the other options of health checks",
                hint="leave out one of them",
            )
        if self.retries is not None and self.retries < 1:
            raise ConfigError(f"--health-retries must be at least 1, got {self.retries}")
        self.durations()

    def durations(self) -> dict[str, float]:
        """Those that are given, by their names in `HealthSpec`."""
        texts = {
            "interval_s": ("--health-interval", self.interval),
            "timeout_s": ("--health-timeout", self.timeout),
            "start_period_s": ("--health-start-period", self.start_period),
            "start_interval_s": ("--health-start-interval", self.start_interval),
        }
        durations = {
            name: parse_duration(text, what=flag)
            for name, (flag, text) in texts.items()
            if text is not None
        }
        for name, seconds in durations.items():
            # 0 is the default, as in an image.
            if 0 < seconds < _LEAST_S:
                raise ConfigError(f"{texts[name][0]} must be at least 1ms, got {texts[name][1]}")
        return {name: seconds for name, seconds in durations.items() if seconds}


def build_spec(request: HealthRequest, image: Mapping[str, object] | None) -> HealthSpec | None:
    """How the container is asked; None if neither user nor image says it, or the user does not want it.

    Args:
        request: What the user asks for.
        image: ``Healthcheck`` of the image's configuration.
    """
    declared = image or {}
    args = (*_SHELL, request.command) if request.command else _parse_test(declared.get("Test"))
    if request.disabled or not args:
        return None
    seconds: dict[str, Any] = {
        name: float(value) / 1e9
        for name, key in (
            ("interval_s", "Interval"),
            ("timeout_s", "Timeout"),
            ("start_period_s", "StartPeriod"),
            ("start_interval_s", "StartInterval"),
        )
        if isinstance(value := declared.get(key), int) and value >= _LEAST_S * 1e9
    }
    seconds |= request.durations()
    spec = HealthSpec(args=args)
    retries = request.retries or declared.get("Retries")
    return replace(
        spec,
        retries=retries if isinstance(retries, int) and retries > 0 else spec.retries,
        **seconds,
    )


def build_image_check(spec: HealthSpec | None) -> dict[str, object]:
    """``Healthcheck`` of an image whose containers are asked so, whatever an image below says."""
    if spec is None:
        return {"Test": ["NONE"]}
    shell = spec.args[: len(_SHELL)] == _SHELL and len(spec.args) == len(_SHELL) + 1
    test = ["CMD-SHELL", spec.args[-1]] if shell else ["CMD", *spec.args]
    seconds = {
        "Interval": spec.interval_s,
        "Timeout": spec.timeout_s,
        "StartPeriod": spec.start_period_s,
        "StartInterval": spec.start_interval_s,
    }
    durations = {name: round(value * 1e9) for name, value in seconds.items()}
    return {"Test": test, **durations, "Retries": spec.retries}


def _parse_test(test: object) -> tuple[str, ...]:
    """The process of an image's ``Test``; empty for none, or for what an image has no right to say."""
    if not isinstance(test, list | tuple):
        return ()
    words = cast("Sequence[object]", test)
    match [str(word) for word in words if isinstance(word, str)]:
        case ["CMD", *args]:
            return tuple(args)
        case ["CMD-SHELL", command]:
            return (*_SHELL, command)
        case _:
            return ()


def judge(health: Health, probe: Probe, spec: HealthSpec, *, starting: bool) -> Health:
    """What one more probe makes of it.

    Args:
        health: As it was.
        probe: What was found.
        spec: How it is asked.
        starting: Its start period is not over.
    """
    probes = (*health.log, probe)[-_MAX_PROBES:]
    if probe.exit_code == 0:
        return Health(status="healthy", failing_streak=0, log=probes)
    if starting and health.status == "starting":
        return replace(health, log=probes)
    streak = health.failing_streak + 1
    return Health(
        status="unhealthy" if streak >= spec.retries else health.status,
        failing_streak=streak,
        log=probes,
    )


async def watch(
    spec: HealthSpec,
    run: "Callable[[ExecSpec], AbstractAsyncContextManager[Process]]",
    tell: Callable[[Health], None],
    *,
    ready: Callable[[], Awaitable[object]],
) -> None:
    """Ask a container that has just started, again and again, until cancelled.

    Args:
        spec: How it is asked.
        run: Runs a process in it.
        tell: Called after each probe.
        ready: Returns when the container can be asked.
    """
    health = Health()
    began = time.monotonic()
    while True:
        starting = time.monotonic() - began < spec.start_period_s
        early = starting and health.status == "starting"
        await asyncio.sleep(spec.start_interval_s if early else spec.interval_s)
        await ready()
        # A probe that begins in the start period does not count, however long it takes.
        starting = time.monotonic() - began < spec.start_period_s
        health = judge(health, await _probe(spec, run), spec, starting=starting)
        tell(health)


async def _probe(
    spec: HealthSpec, run: "Callable[[ExecSpec], AbstractAsyncContextManager[Process]]"
) -> Probe:
    started_at = time.time()
    output = bytearray()
    exit_code = -1
    try:
        async with asyncio.timeout(spec.timeout_s):
            exit_code = await _run(spec, run, output)
    except TimeoutError:
        output[:] = f"the health check took longer than {spec.timeout_s:g} s".encode()
    except WoodlotError as error:
        output[:] = error.message.encode()
        await asyncio.sleep(_END_S)
    finished_at = time.time()
    if exit_code == KILLED_EXIT_CODE:
        await asyncio.sleep(_END_S)
    return Probe(
        started_at=started_at,
        finished_at=finished_at,
        exit_code=exit_code,
        output=bytes(output).decode("utf-8", "replace"),
    )


async def _run(
    spec: HealthSpec,
    run: "Callable[[ExecSpec], AbstractAsyncContextManager[Process]]",
    output: bytearray,
) -> int:
    from woodlot.guest.said import Exited, Output

    probe_id = f"health-{os.urandom(8).hex()}"
    async with (
        run(ExecSpec(id=probe_id, args=spec.args)) as process,
        aclosing(process.events()) as events,
    ):
        async for event in events:
            if isinstance(event, Output):
                output += event.data[: _MAX_OUTPUT_BYTES - len(output)]
            elif isinstance(event, Exited):
                return event.code
    raise AssertionError("events() ends with Exited or raises")
