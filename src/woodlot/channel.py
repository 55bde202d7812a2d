"""gRPC connections to our own processes and guests: never through a proxy, never shared with another one."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import grpc.aio


def dial(
    target: str, *, max_message_bytes: int, options: Sequence[tuple[str, Any]] = ()
) -> grpc.aio.Channel:
    """A channel to ``target``; the caller closes it.

    Args:
        target: ``unix:/…`` or ``vsock:CID:PORT``.
        max_message_bytes: What one answer may be long.
        options: More of gRPC's.
    """
    return grpc.aio.insecure_channel(
        target,
        options=[
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
            *options,
        ],
    )


class Channel:
    """A channel that is closed by leaving its ``async with`` block."""

    def __init__(
        self, target: str, *, max_message_bytes: int, options: Sequence[tuple[str, Any]] = ()
    ) -> None:
        self._channel = dial(target, max_message_bytes=max_message_bytes, options=options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._channel.close(None)
