"""What a guest did when, carried into the timeline of its container."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from woodlot import trace
from woodlot.errors import GuestError

if TYPE_CHECKING:
    from woodlot.guest.client import Agent

_TIMEOUT_S = 5.0
_MAX_SPANS = 1000


@contextlib.asynccontextmanager
async def traced(agent: "Agent", started: "asyncio.Future[None]") -> AsyncGenerator[None]:
    """Have what the guest does in the timeline, if there is one: when its process has started, and at the end of the block."""
    if not trace.is_on():
        yield
        return
    # What is from before is of the machine that was saved.
    since = time.monotonic_ns()

    async def take() -> None:
        nonlocal since
        with contextlib.suppress(GuestError):
            since = await _take(agent, since)

    async def take_start() -> None:
        await asyncio.wait((started,))
        await take()

    taking = asyncio.create_task(take_start())
    try:
        yield
    finally:
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
        await take()


async def _take(agent: "Agent", since_ns: int) -> int:
    """Add the spans that ended after ``since_ns``, by our clock; the time up to which there are all."""
    from woodlot.guest.said import clean

    asked = time.monotonic_ns()
    said = await agent.trace(timeout_s=_TIMEOUT_S)
    # The guest read its clock about halfway between the question and its answer.
    ahead = (asked + time.monotonic_ns()) // 2 - said.now_nanos
    spans = [
        (clean(span.name), span.start_nanos + ahead, span.end_nanos + ahead)
        for span in said.spans[:_MAX_SPANS]
    ]
    trace.add((span for span in spans if span[2] > since_ns), guest=True)
    return said.now_nanos + ahead
