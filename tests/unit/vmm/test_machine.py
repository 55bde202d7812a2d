"""QemuVmm against scripted programs in QEMU's place."""

import asyncio
import dataclasses
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs import python_shebang
from woodlot.errors import NotFoundError, UnsupportedError, VmmError, VmmTimeoutError
from woodlot.units import MIB
from woodlot.vmm.base import Accelerator, Arch, SavedMachine, VmExit, VmSpec
from woodlot.vmm.qemu import binary, console, discards, machine
from woodlot.vmm.qemu.machine import QemuVmm, describe_end
from woodlot.vmm.qemu.qmp import QmpClosedError, QmpCommandError

# What every fake begins with: it finds its QMP socket as QEMU does.
PRELUDE = """\
import json, os, re, signal, socket, sys, time
fd = int(re.search(r"id=qmp,fd=(\\d+)", " ".join(sys.argv))[1])
qmp = socket.socket(fileno=fd)
reader = qmp.makefile("r")
def send(**message):
    qmp.sendall(json.dumps(message).encode() + b"\\n")
def greet():
    send(QMP={"version": {}, "capabilities": []})
def serve(answers={}, until=None):
    for line in reader:
        message = json.loads(line)
        name = message["execute"]
        answer = answers.get(name, {"return": [] if name == "query-chardev" else {}})
        send(id=message["id"], **answer)
        if name == until:
            return
"""


@pytest.fixture
def scratch() -> Iterator[Path]:
    # Paths of sockets are short, pytest's directories are not.
    with tempfile.TemporaryDirectory(prefix="wl-") as directory:
        yield Path(directory)


@pytest.fixture
def spec(scratch: Path) -> VmSpec:
    return VmSpec(
        name="web",
        arch=Arch.AMD64,
        accelerator=Accelerator.TCG,
        vcpus=1,
        memory_bytes=64 * MIB,
        kernel=scratch / "vmlinuz",
        initramfs=scratch / "init.cpio",
        control_socket=scratch / "a.sock",
        console_log=scratch / "console.log",
        vmm_log=scratch / "vmm.log",
    )


@pytest.fixture
def fake(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> "Fake":
    return Fake(scratch / "bin", monkeypatch)


class Fake:
    """Puts a script on PATH as qemu-system-x86_64."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        directory.mkdir()
        self.path = directory / "qemu-system-x86_64"
        monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")

    def __call__(self, body: str) -> QemuVmm:
        self.path.write_text(f"{python_shebang()}{PRELUDE}\n{body}")
        self.path.chmod(0o755)
        return QemuVmm(Arch.AMD64)


async def test_it_runs_and_is_stopped(fake: Fake, spec: VmSpec) -> None:
    vmm = fake("greet(); serve()")
    async with vmm.start(spec) as vm:
        assert vm.control_target == f"unix:{spec.control_socket}"
        assert spec.control_socket.stat().st_mode & 0o777 == 0o600
        assert await vm.execute("query-status") == {}
        pid = vm.pid
    assert not spec.control_socket.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_death_at_start_tells_last_words_and_command(fake: Fake, spec: VmSpec) -> None:
    spec.vmm_log.write_text("words of an earlier start\n")
    vmm = fake(
        "sys.stderr.write('qemu: Could not access KVM kernel module: Permission denied\\n'); sys.exit(1)"
    )
    with pytest.raises(VmmError, match="could not start") as caught:
        async with vmm.start(spec):
            pytest.fail("it did not run")
    error = caught.value
    assert "status 1" in error.message
    assert "Permission denied" in error.message
    assert error.details is not None
    assert error.details.startswith(str(fake.path))
    assert "earlier start" not in error.details
    assert error.hint is not None
    assert "usermod -aG kvm" in error.hint
    assert not spec.control_socket.exists()


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("cannot set up guest memory 'ram': Cannot allocate memory", "less memory"),
        ('Failed to get "write" lock', "another virtual machine"),
        ("failed to find romfile", "boot ROMs"),
    ],
)
async def test_known_ends_have_a_hint(fake: Fake, spec: VmSpec, words: str, hint: str) -> None:
    vmm = fake(f"sys.stderr.write({words!r}); sys.exit(1)")
    with pytest.raises(VmmError) as caught:
        async with vmm.start(spec):
            pytest.fail("it did not run")
    assert hint in (caught.value.hint or "")


async def test_a_program_that_says_nothing_is_given_up(
    fake: Fake, spec: VmSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "GREETING_TIMEOUT_S", 0.3)
    vmm = fake("time.sleep(60)")
    with pytest.raises(VmmTimeoutError, match="did not answer"):
        async with vmm.start(spec):
            pytest.fail("it did not run")


@pytest.mark.parametrize("words", ["hello\\n", "[]\\n", '{"a": 1}\\n', "x" * (9 << 20)])
async def test_garbage_in_place_of_qmp(fake: Fake, spec: VmSpec, words: str) -> None:
    vmm = fake(f"qmp.sendall(b'{words}'); time.sleep(0.2)")
    with pytest.raises(VmmError):
        async with vmm.start(spec):
            pytest.fail("it did not run")


async def test_a_refused_command_and_a_lost_answer(fake: Fake, spec: VmSpec) -> None:
    vmm = fake("greet(); serve({'bad': {'error': {'desc': 'no such thing'}}}, until='bad')")
    async with vmm.start(spec) as vm:
        with pytest.raises(QmpCommandError, match="no such thing"):
            await vm.execute("bad")
        with pytest.raises(QmpClosedError):
            await vm.execute("next")
        ended = await vm.wait()
    assert ended == VmExit(reason="QEMU ended with status 0", orderly=False)


async def test_kill_is_told_as_such_to_all_who_wait(fake: Fake, spec: VmSpec) -> None:
    vmm = fake("greet(); serve()")
    async with vmm.start(spec) as vm:
        waiting = [asyncio.create_task(vm.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        vm.kill()
        ended = await asyncio.gather(*waiting)
        assert set(ended) == {VmExit(reason="ended by signal SIGKILL", orderly=False)}
        assert await vm.wait() == ended[0]
        vm.kill()


@pytest.mark.parametrize(
    ("reason", "console_text", "expected"),
    [
        ("guest-shutdown", "", VmExit(reason="guest shut down", orderly=True)),
        ("host-qmp-quit", "", VmExit(reason="ended by command", orderly=True)),
        ("guest-reset", "", VmExit(reason="guest rebooted", orderly=False)),
        (
            "guest-reset",
            "[ 1.0] Kernel panic - not syncing: No \x1b[31minit\x07 found\r\nrest",
            VmExit(reason="guest panicked: No [31minit found", orderly=False),
        ),
    ],
)
async def test_the_last_event_is_the_reason(
    fake: Fake, spec: VmSpec, reason: str, console_text: str, expected: VmExit
) -> None:
    # The event and the end come together: none may be lost.
    vmm = fake(
        "greet(); serve(until='go')\n"
        f"open({str(spec.console_log)!r}, 'w', newline='').write({console_text!r})\n"
        f"send(event='SHUTDOWN', data={{'guest': True, 'reason': {reason!r}}})"
    )
    async with vmm.start(spec) as vm:
        await vm.execute("go")
        assert await vm.wait() == expected


async def test_a_processor_that_cannot_be_run_ends_the_vm(fake: Fake, spec: VmSpec) -> None:
    vmm = fake(
        "greet(); serve(until='go'); send(event='STOP')\n"
        "serve({'query-status': {'return': {'status': 'internal-error'}}})"
    )
    async with vmm.start(dataclasses.replace(spec, accelerator=Accelerator.KVM)) as vm:
        await vm.execute("go")
        assert (await vm.wait()).reason == "KVM could not run the guest"


async def test_a_pause_does_not_end_the_vm(fake: Fake, spec: VmSpec) -> None:
    vmm = fake(
        "greet(); serve(until='stop'); send(event='STOP')\n"
        "serve({'query-status': {'return': {'status': 'paused'}}})"
    )
    async with vmm.start(spec) as vm:
        await vm.pause()
        await asyncio.sleep(0.1)
        await vm.resume()
        assert await vm.execute("query-name") == {}


async def test_the_agents_port(fake: Fake, spec: VmSpec) -> None:
    vmm = fake(
        "greet(); serve(until='go')\n"
        "send(event='VSERPORT_CHANGE', data={'open': True, 'id': 'other'})\n"
        "time.sleep(0.1); send(event='VSERPORT_CHANGE', data={'open': True, 'id': 'control-port'})\n"
        "serve()"
    )
    async with vmm.start(spec) as vm:
        await vm.execute("go")
        async with asyncio.timeout(5):
            await vm.wait_agent()


async def test_a_port_that_was_open_before_we_asked(fake: Fake, spec: VmSpec) -> None:
    vmm = fake(
        "greet()\n"
        "serve({'query-chardev': {'return': [{'label': 'control', 'frontend-open': True}]}})"
    )
    async with vmm.start(spec) as vm, asyncio.timeout(5):
        await vm.wait_agent()


async def test_waiting_for_the_agent_of_a_vm_that_ends(fake: Fake, spec: VmSpec) -> None:
    vmm = fake("greet(); serve(until='go'); sys.stderr.write('it broke\\n'); sys.exit(3)")
    async with vmm.start(spec) as vm:
        await vm.execute("go")
        with pytest.raises(VmmError, match="QEMU ended with status 3: it broke"):
            await vm.wait_agent()


async def test_an_error_in_the_block_passes_and_leaves_nothing(fake: Fake, spec: VmSpec) -> None:
    vmm = fake("greet(); serve()")
    pids: list[int] = []

    async def fail() -> None:
        async with vmm.start(spec) as vm:
            pids.append(vm.pid)
            raise OSError("ours")

    with pytest.raises(OSError, match="ours"):
        await fail()
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


async def test_a_program_that_ignores_sigterm_is_killed(
    fake: Fake, spec: VmSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "STOP_GRACE_S", 0.2)
    vmm = fake("signal.signal(signal.SIGTERM, signal.SIG_IGN); greet(); serve()\ntime.sleep(60)")
    async with vmm.start(spec) as vm:
        pid = vm.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_no_qemu_is_told_with_the_command_that_installs_it(
    spec: VmSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(NotFoundError) as caught:
        async with QemuVmm(Arch.AMD64).start(spec):
            pytest.fail("it did not run")
    assert "qemu-system-x86_64" in caught.value.message
    assert "install" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("distribution", "hint"),
    [
        ("ID=debian\n", "sudo apt install qemu-system-arm"),
        ('ID=ubuntu\nID_LIKE="debian"\n', "sudo apt install qemu-system-arm"),
        ("ID=rocky\nID_LIKE='rhel centos fedora'\n", "sudo dnf install qemu-system-aarch64-core"),
        ("ID=other\n", "install the package that has qemu-system-aarch64"),
    ],
)
def test_install_hints(tmp_path: Path, distribution: str, hint: str) -> None:
    path = tmp_path / "os-release"
    path.write_text(distribution)
    assert binary.install_hint(Arch.ARM64, path) == hint


@pytest.mark.parametrize(
    ("output", "number"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)", (7, 2, 22)),
        ("QEMU emulator version 10.1.0", (10, 1, 0)),
    ],
)
def test_version(tmp_path: Path, output: str, number: tuple[int, ...]) -> None:
    assert binary.read_version(program(tmp_path, output)).number == number


def test_an_old_qemu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"6\.2\.0.*7\.2 or newer"):
        binary.read_version(program(tmp_path, "QEMU emulator version 6.2.0"))


def test_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VmmError):
        binary.read_version(program(tmp_path, "hello"))


def program(directory: Path, output: str) -> Path:
    path = directory / "qemu"
    path.write_text(f"#!/bin/sh\necho '{output}'\n")
    path.chmod(0o755)
    return path


def test_console_text_is_bounded_and_clean(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_bytes(b"\xff" * (1 << 20) + b"Kernel panic - not syncing: \x1b]0;x\x07" + b"A" * 9999)
    line = console.panic_line(log)
    assert line is not None
    assert len(line) <= 200
    assert line.isprintable()
    assert console.panic_line(tmp_path / "missing") is None


def test_ends_without_a_known_reason() -> None:
    assert describe_end(0, "subsystem-reset").reason == "QEMU ended: subsystem-reset"
    assert describe_end(-6, None).reason == "ended by signal SIGABRT"
    assert describe_end(1, None, last_words="oops").reason == "QEMU ended with status 1: oops"


def test_amd_processors_have_no_arch_capabilities(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: x\n")
    vendor = machine.host_cpu_vendor(cpuinfo)
    assert machine.broken_features(Accelerator.KVM, vendor) == ("arch-capabilities",)
    assert machine.broken_features(Accelerator.TCG, vendor) == ()
    cpuinfo.write_text("processor\t: 0\nCPU implementer\t: 0x41\n")
    assert machine.host_cpu_vendor(cpuinfo) == ""
    assert machine.broken_features(Accelerator.KVM, "GenuineIntel") == ()
    assert machine.host_cpu_vendor(tmp_path / "none") == ""


MIGRATE = """
def state_socket():
    uri = next(m["arguments"]["uri"] for m in seen if m["execute"].startswith("migrate") and "uri" in m["arguments"])
    kind, _, where = uri.partition(":")
    if kind == "fd":
        return socket.socket(fileno=int(where))
    s = socket.socket(socket.AF_UNIX); s.connect(where); return s
seen = []
def serve_all(on):
    for line in reader:
        message = json.loads(line); seen.append(message)
        name = message["execute"]
        if name in on:
            on[name]()
        send(id=message["id"], **{"return": [] if name == "query-chardev" else {}})
"""


async def test_a_machine_is_saved_and_another_goes_on_where_it_stood(
    fake: Fake, spec: VmSpec, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver = fake(
        MIGRATE
        + """
def out():
    s = state_socket(); s.sendall(b"state" * 100000); s.close()
    send(event="MIGRATION", data={"status": "completed"})
greet(); serve_all({"migrate": out})
"""
    )
    memory = scratch / "memory"
    async with saver.start(dataclasses.replace(spec, memory_file=memory)) as vm:
        assert memory.stat().st_mode & 0o777 == 0o600
        await vm.save(scratch / "state")
    assert (scratch / "state").read_bytes() == b"state" * 100000
    with memory.open("r+b") as file:
        file.truncate(64 * MIB)
    taker = fake(
        MIGRATE
        + f"""
def take():
    s = state_socket(); data = b""
    while True:
        more = s.recv(65536)
        if not more: break
        data += more
    good = data == b"state" * 100000
    send(event="MIGRATION", data={{"status": "active"}})
    send(event="MIGRATION", data={{"status": "completed" if good else "failed"}})
def note():
    open({str(scratch / "cont")!r}, "w").write(" ".join(m["execute"] for m in seen))
greet(); serve_all({{"migrate-incoming": take, "cont": note}})
"""
    )
    saved = SavedMachine(memory=memory, state=scratch / "state")
    for usable in (False, True):
        monkeypatch.setattr(discards, "is_usable", lambda usable=usable: usable)
        async with taker.start(spec, saved):
            pass
        ran = (scratch / "cont").read_text().split()
        assert ran[-3:] == ["migrate-set-capabilities", "migrate-incoming", "cont"]
        (scratch / "cont").unlink()


@pytest.mark.parametrize(
    "body", ['send(event="MIGRATION", data={"status": "failed"})', "sys.exit(1)"]
)
async def test_a_state_that_does_not_fit_is_an_error(
    fake: Fake, spec: VmSpec, scratch: Path, body: str
) -> None:
    (scratch / "state").write_bytes(b"x")
    (scratch / "memory").write_bytes(b"")
    vmm = fake(MIGRATE + f'greet(); serve_all({{"migrate-incoming": lambda: {body}}})')
    saved = SavedMachine(memory=scratch / "memory", state=scratch / "state")
    with pytest.raises(VmmError, match="could not take up the machine's state"):
        async with vmm.start(spec, saved):
            pytest.fail("it did not start")
    assert not spec.control_socket.exists()
