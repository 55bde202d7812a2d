"""How what waits in an event loop is called by programs that have none.

Each function here makes a method of a mirror from one of what it mirrors, with its arguments, its types and its docstring, so
that none is written twice.
"""

import asyncio
import functools
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

A = TypeVar("A")
A_co = TypeVar("A_co", covariant=True)
M = TypeVar("M", bound="Mirror[Any]")
P = ParamSpec("P")
T = TypeVar("T")


class Loop:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="woodlot")
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Its result; when the caller is interrupted meanwhile, it is cancelled and waited for."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Mirror(Generic[A_co]):
    """Something of `woodlot.aio`, and the loop it is used in."""

    def __init__(self, loop: Loop, inner: A_co) -> None:
        self._loop = loop
        self._inner = inner

    def parts(self) -> tuple[Loop, A_co]:
        """Both."""
        return self._loop, self._inner


def plain(method: Callable[Concatenate[A, P], T]) -> Callable[Concatenate[Mirror[A], P], T]:
    """Of a method that does not wait."""

    @functools.wraps(method)
    def call(self: Mirror[A], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return method(self.parts()[1], *args, **kwargs)

    return call


def waited(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Mirror[A], P], T]:
    """Of a coroutine."""

    @functools.wraps(method)
    def call(self: Mirror[A], /, *args: P.args, **kwargs: P.kwargs) -> T:
        loop, inner = self.parts()
        return loop.run(method(inner, *args, **kwargs))

    return call


def iterated(
    method: Callable[Concatenate[A, P], AsyncGenerator[T]],
) -> Callable[Concatenate[Mirror[A], P], Generator[T]]:
    """Of an asynchronous generator."""

    @functools.wraps(method)
    def call(self: Mirror[A], /, *args: P.args, **kwargs: P.kwargs) -> Generator[T]:
        loop, inner = self.parts()
        items = method(inner, *args, **kwargs)

        async def following() -> tuple[T] | None:
            async for item in items:
                return (item,)
            return None

        try:
            while (found := loop.run(following())) is not None:
                yield found[0]
        finally:
            loop.run(items.aclose())

    return call


def mirrored(
    kind: type[M], method: Callable[Concatenate[A, P], object]
) -> Callable[Concatenate[Mirror[A], P], M]:
    """Of a method that does not wait, and gives what is to be mirrored."""

    @functools.wraps(method)
    def call(self: Mirror[A], /, *args: P.args, **kwargs: P.kwargs) -> M:
        loop, inner = self.parts()
        return kind(loop, method(inner, *args, **kwargs))

    return call


def mirrored_each(
    kind: type[M], method: Callable[Concatenate[A, P], Sequence[object]]
) -> Callable[Concatenate[Mirror[A], P], list[M]]:
    """As `mirrored`, of one that gives several."""

    @functools.wraps(method)
    def call(self: Mirror[A], /, *args: P.args, **kwargs: P.kwargs) -> list[M]:
        loop, inner = self.parts()
        return [kind(loop, one) for one in method(inner, *args, **kwargs)]

    return call


def mirrored_waited(
    kind: type[M], method: Callable[Concatenate[A, P], Coroutine[Any, Any, object]]
) -> Callable[Concatenate[Mirror[A], P], M]:
    """As `mirrored`, of a coroutine."""

    @functools.wraps(method)
    def call(self: Mirror[A], /, *args: P.args, **kwargs: P.kwargs) -> M:
        loop, inner = self.parts()
        return kind(loop, loop.run(method(inner, *args, **kwargs)))

    return call


def mirrored_block(
    kind: type[M], method: Callable[Concatenate[A, P], AbstractAsyncContextManager[object]]
) -> Callable[Concatenate[Mirror[A], P], AbstractContextManager[M]]:
    """As `mirrored`, of what is entered by ``async with``."""

    @functools.wraps(method)
    @contextmanager
    def call(self: Mirror[A], /, *args: P.args, **kwargs: P.kwargs) -> Generator[M]:
        loop, inner = self.parts()
        manager = method(inner, *args, **kwargs)
        entered = loop.run(manager.__aenter__())
        try:
            yield kind(loop, entered)
        finally:
            loop.run(manager.__aexit__(None, None, None))

    return call
