"""The Python library, on real virtual machines, by programs of their own as its users write them."""

import signal
import subprocess
import sys
import textwrap
import time

import pytest

from tests.cli import Cli
from tests.registry.server import Registry

pytestmark = pytest.mark.vm


@pytest.fixture
def busybox(registry: Registry) -> str:
    return registry.reference("busybox:1.35")


def program(container: Cli, text: str, *args: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(text), *args],
        stdout=subprocess.PIPE,
        env=container.environment(),
        text=True,
    )


def test_a_sandbox(container: Cli, busybox: str) -> None:
    text = """
        import sys, time, woodlot
        from woodlot.errors import ExecutionError, LimitError, StateError, TimeLimitError, WoodlotError

        with woodlot.Client() as client:
            with client.run(sys.argv[1], network="none", env={"X": "1"}, memory="200m") as box:
                done = box.exec(["sh", "-c", "cat; echo $X$Y; id -u; pwd; echo err >&2; exit 3"],
                                input="in ", env={"Y": "2"}, user="33", cwd="/tmp", timeout_s=60)
                assert (done.stdout, done.stderr, done.exit_code) == ("in 12\\n33\\n/tmp\\n", "err\\n", 3), done
                assert box.exec(["cat"], input=b"\\xff" * 300_000).stdout_bytes == b"\\xff" * 300_000
                for args, kind, options in (
                    (["nosuch"], ExecutionError, {}),
                    (["sleep", "100"], TimeLimitError, {"timeout_s": 2}),
                    (["yes"], LimitError, {"max_output_bytes": 1000}),
                ):
                    try:
                        box.exec(args, **options)
                    except kind as error:
                        print("as it should be:", error)
                    else:
                        raise AssertionError(args)
                time.sleep(0.5)
                left = box.exec(["ps"]).stdout
                assert "sleep 100" not in left and "yes" not in left, left
                assert client.containers.get(box.name).id == box.id
                before = box.stats()
                assert 0 < before.memory_bytes < before.memory_limit_bytes == 200 << 20, before
                assert [process.command for process in box.top()] == ["sh"]
                box.pause()
                try:
                    box.exec(["true"])
                except WoodlotError as error:
                    print("as it should be:", error)
                box.unpause()
                box.update(memory="100m")
                assert box.spec.memory_bytes == box.stats().memory_limit_bytes == 100 << 20
                box.exec(["true"])
                assert box.stats().cpu_percent(before) > 0
            assert client.containers.list() == []
            try:
                box.exec(["true"])
            except StateError:
                pass
            else:
                raise AssertionError("it is gone")
            with client.run(sys.argv[1], ["sh", "-c", "echo hello; exit 4"]) as box:
                assert box.wait() == 4
    """
    with program(container, text, busybox) as process:
        printed = process.communicate(timeout=120)[0]
    assert process.returncode == 0
    assert printed.count("as it should be:") == 4


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_container_ends_with_its_program(
    container: Cli, busybox: str, number: signal.Signals
) -> None:
    text = """
        import signal, sys, time, woodlot
        # Where tests run in the background, a shell has it ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with woodlot.run(sys.argv[1], network="none") as box:
            print(box.name, flush=True)
            time.sleep(1000)
    """
    with program(container, text, busybox) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        assert name in container.ok("list")
        process.send_signal(number)
        process.wait(60)
    deadline = time.monotonic() + 60
    while container.ok("list", "--all", "--quiet"):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_asyncio(container: Cli, busybox: str) -> None:
    text = """
        import asyncio, sys
        from woodlot.aio import Client, Output

        async def main():
            async with Client() as client, client.run(sys.argv[1], network="none") as box:
                results = await asyncio.gather(*(box.exec(["echo", str(i)]) for i in range(8)))
                assert [r.stdout for r in results] == [f"{i}\\n" for i in range(8)]
                async with box.stream(["cat"], stdin=True) as attachment:
                    await attachment.write(b"one")
                    async for item in attachment.output():
                        if isinstance(item, Output):
                            assert item.data == b"one"
                            await attachment.close_stdin()
                        else:
                            print("ended with", item.code)

        asyncio.run(main())
    """
    with program(container, text, busybox) as process:
        assert process.communicate(timeout=120)[0] == "ended with 0\n"
