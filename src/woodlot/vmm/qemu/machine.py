"""A virtual machine run by a QEMU process of its own."""

import asyncio
import contextlib
import errno
import logging
import os
import platform
import re
import socket
import sys
from collections.abc import AsyncGenerator, Generator, Mapping
from pathlib import Path
from typing import cast

from woodlot import process, trace
from woodlot.errors import StateError, VmmError, VmmTimeoutError
from woodlot.values import dataclass
from woodlot.vmm.base import (
    CONTROL_VSOCK_PORT,
    Accelerator,
    Arch,
    SavedMachine,
    StreamNetwork,
    TapNetwork,
    VmExit,
    VmSpec,
)
from woodlot.vmm.qemu import binary, cmdline, console, discards, drives, saved
from woodlot.vmm.qemu.discards import KeptFile
from woodlot.vmm.qemu.qmp import Event, Qmp, QmpClosedError

log = logging.getLogger(__name__)

GREETING_TIMEOUT_S = 30.0
STOP_GRACE_S = 5.0
STATE_TIMEOUT_S = 30.0
_LAST_EVENTS_S = 2.0
_STDERR_TAIL_BYTES = 2000
_CONTROL_CHARDEV = "control"
_CONTROL_PORT = "control-port"

# Reason of QEMU's event SHUTDOWN → our words, and whether the guest's data is as the guest left it.
_ENDS = {
    "guest-shutdown": ("guest shut down", True),
    "guest-reset": ("guest rebooted", False),
    "guest-panic": ("guest panicked", False),
    "host-qmp-quit": ("ended by command", True),
    "host-signal": ("ended by signal SIGTERM", False),
}
# Reasons of QEMU's event BLOCK_IO_ERROR; it runs without a locale.
_DISK_FULL = frozenset((os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT)))
# Words in QEMU's last lines → what to do about it.
_HINTS = (
    (b"KVM kernel module: Permission denied", "sudo usermod -aG kvm $USER, then log in again"),
    (b"KVM kernel module: No such file", "load KVM (modprobe kvm_intel or kvm_amd), or set vm.accel=tcg"),
    (b"cannot set up guest memory", "give the container less memory, or free some on the host"),
    (b"Cannot allocate memory", "give the container less memory, or free some on the host"),
    (b"could not load PC BIOS", "install QEMU's firmware (Debian: seabios, qemu-system-data)"),
    (b"failed to find romfile", "install QEMU's boot ROMs (Debian: qemu-system-data)"),
    (b'Failed to get "write" lock', "another virtual machine uses this disk: stop it first"),
    (b'Failed to get shared "write" lock', "another virtual machine writes this disk: stop it first"),
    (b"sandbox support is not enabled", "install a QEMU that was built with seccomp"),
    (b"No space left on device", "free some space on the host's disk"),
)  # fmt: skip


class QemuMachine:
    """A running QEMU process; made by `QemuVmm.start`, over when that block ends."""

    def __init__(self, spec: VmSpec, child: process.Child, control_target: str) -> None:
        self._spec = spec
        self._child = child
        self._control_target = control_target
        self._qmp: Qmp | None = None
        self._shutdown_reason: str | None = None
        self._cpu_failed = False
        self._disk_full = False
        self._agent_opened = asyncio.Event()
        self._migrated: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._ended: asyncio.Task[VmExit] | None = None

    @property
    def pid(self) -> int:
        """Process id of QEMU."""
        return self._child.pid

    @property
    def control_target(self) -> str:
        """Where the agent is reached, as a gRPC target."""
        return self._control_target

    @property
    def disk_full(self) -> bool:
        """Whether a write of the guest's has failed because the host's disk was full."""
        return self._disk_full

    async def wait(self) -> VmExit:
        """Return once QEMU has ended; may be called any number of times."""
        return await asyncio.shield(self._watch())

    def kill(self) -> None:
        """End it now, as pulling the plug does; harmless after the end."""
        self._child.kill()

    async def execute(self, command: str, **arguments: object) -> object:
        """Run a QMP command; what it returned.

        Raises:
            VmmError: QEMU refused it (`QmpCommandError`) or is gone (`QmpClosedError`).
        """
        if self._qmp is None:
            raise StateError("QEMU does not answer commands yet")
        return await self._qmp.execute(command, **arguments)

    async def pause(self) -> None:
        """Stop the vCPUs; the guest's clocks stand."""
        await self.execute("stop")

    async def resume(self) -> None:
        """Let the vCPUs run on."""
        await self.execute("cont")

    async def become(self, spec: VmSpec) -> None:
        """Be another machine of the same shape, whose disks come to their places and whose logs ours are from now on.

        Raises:
            VmmError: A disk cannot be opened, or QEMU is gone.
        """
        self._spec = spec
        for index, disk in enumerate(spec.disks):
            await drives.insert(self.execute, index, disk)

    async def save(self, state: Path) -> None:
        """Stop the guest and write all of the machine but its memory to the file ``state``; it is of no use then.

        The machine must have been started with a ``memory_file``, which is whole once QEMU has ended.

        Raises:
            VmmError: QEMU could not do it.
        """
        await self.pause()
        path = self._spec.control_socket.with_name("m.sock")
        with _listen(path) as listener:
            listener.setblocking(False)  # noqa: FBT003
            receiving = asyncio.create_task(saved.receive_state(listener, state))
            try:
                await self.execute("migrate-set-capabilities", capabilities=saved.CAPABILITIES)
                await self.execute("migrate", uri=f"unix:{path}")
                async with asyncio.timeout(STATE_TIMEOUT_S):
                    await self._wait_migrated("save")
                    await receiving
            except TimeoutError as error:
                raise VmmTimeoutError(f"QEMU did not save {self._spec.name} in time") from error
            finally:
                receiving.cancel()
                await asyncio.gather(receiving, return_exceptions=True)

    async def wait_agent(self) -> None:
        """Return once the guest has opened the agent's virtio-serial port: its kernel and its agent run.

        Only where the port carries control, or was asked for beside vsock.

        Raises:
            VmmError: The VM ended first.
        """
        opened = asyncio.ensure_future(self._agent_opened.wait())
        try:
            await asyncio.wait((opened, self._watch()), return_when=asyncio.FIRST_COMPLETED)
            if not opened.done():
                ended = self._watch().result()
                raise VmmError(f"the virtual machine ended: {ended.reason}")
        finally:
            opened.cancel()

    # For QemuVmm.

    async def connect(self, sock: socket.socket) -> None:
        """Open QMP, which QEMU serves once all of the machine has been put together."""
        self._qmp = await Qmp.open(sock, self._on_event)
        # An event before this was not sent to anyone.
        for device in _dicts(await self._qmp.execute("query-chardev")):
            if device.get("label") == _CONTROL_CHARDEV and device.get("frontend-open") is True:
                self._agent_opened.set()
        self._watch()

    async def restore(self, state: bytes, channel: socket.socket, channel_fd: int) -> None:
        """Take a saved machine's state, plug in what could not be part of it, and let the guest run on.

        Args:
            state: What `save` wrote.
            channel: Our end of the connection that QEMU inherited; closed.
            channel_fd: Its number in QEMU.

        Raises:
            VmmError: The state does not fit, or is damaged.
        """
        sending = asyncio.create_task(saved.send_state(state, channel))
        try:
            await self.execute("migrate-set-capabilities", capabilities=saved.CAPABILITIES)
            await self.execute("migrate-incoming", uri=f"fd:{channel_fd}")
            with trace.span("load the state"):
                async with asyncio.timeout(STATE_TIMEOUT_S):
                    await self._wait_migrated("take up")
        except QmpClosedError as error:
            ended = await self._watch()
            raise VmmError(f"QEMU could not take up the machine's state: {ended.reason}") from error
        except TimeoutError as error:
            raise VmmTimeoutError(
                f"QEMU did not take up the saved state for {self._spec.name} in time"
            ) from error
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        with trace.span("plug in and resume"):
            for index, share in enumerate(self._spec.shares):
                await self.execute("device_add", **cmdline.share_device(index, share))
            await self.resume()

    async def _wait_migrated(self, operation: str) -> None:
        await asyncio.wait((self._migrated, self._watch()), return_when=asyncio.FIRST_COMPLETED)
        if not self._migrated.done():
            ended = self._watch().result()
            raise VmmError(f"QEMU could not {operation} the machine's state: {ended.reason}")
        if not self._migrated.result():
            raise VmmError(f"QEMU could not {operation} the machine's state")

    async def close(self) -> None:
        """Stop QEMU if it runs, and reap it."""
        try:
            # A vCPU that hangs inside the accelerator may not even be killed; we do not hang with it.
            async with asyncio.timeout(2 * STOP_GRACE_S):
                await self._child.stop(grace_s=STOP_GRACE_S)
                if self._ended is not None:
                    await asyncio.wait((self._ended,))
        except TimeoutError:
            log.warning("QEMU %d does not end; it is left behind", self.pid)
        finally:
            if self._qmp is not None:
                await self._qmp.close()

    def _on_event(self, name: str, data: Event) -> None:
        log.debug("QEMU event %s %s", name, data)
        if name == "SHUTDOWN":
            self._shutdown_reason = str(data.get("reason", "unknown"))
        elif name == "VSERPORT_CHANGE" and data.get("id") == _CONTROL_PORT:
            if data.get("open") is True:
                self._agent_opened.set()
        elif name == "MIGRATION":
            if data.get("status") in {"completed", "failed"} and not self._migrated.done():
                self._migrated.set_result(data["status"] == "completed")
        elif name == "BLOCK_IO_ERROR":
            # Its field "nospace" is for machines that stop at errors, which ours do not.
            self._disk_full = self._disk_full or data.get("reason") in _DISK_FULL
        elif name == "STOP":
            task = asyncio.ensure_future(self._check_stopped())
            task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _check_stopped(self) -> None:
        """A vCPU that the accelerator cannot run leaves a VM that stands still for ever: end it."""
        with contextlib.suppress(VmmError):
            status = await self.execute("query-status")
            for state in _dicts([status]):
                if state.get("status") == "internal-error":
                    self._cpu_failed = True
                    self.kill()

    def _watch(self) -> "asyncio.Task[VmExit]":
        if self._ended is None:
            self._ended = asyncio.create_task(self._wait_end(), name=f"vm {self._spec.name}")
        return self._ended

    async def _wait_end(self) -> VmExit:
        status = await self._child.wait()
        if self._qmp is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_EVENTS_S):
                    await self._qmp.finished()
        spec = self._spec
        return describe_end(
            status,
            self._shutdown_reason,
            panic=console.panic_line(spec.console_log),
            failed_accelerator=spec.accelerator.value.upper() if self._cpu_failed else None,
            last_words=console.printable(_last_line(console.tail(spec.vmm_log, 4096))),
        )


def describe_end(
    status: int,
    shutdown_reason: str | None,
    *,
    panic: str | None = None,
    failed_accelerator: str | None = None,
    last_words: str = "",
) -> VmExit:
    """How a VM ended, from all that is known.

    Args:
        status: Exit status of QEMU, negative for a signal.
        shutdown_reason: Of the last event SHUTDOWN (QEMU, qapi/run-state.json, ShutdownCause); None if there was none.
        panic: The guest kernel's panic on the console.
        failed_accelerator: What reported that it cannot run the guest's processor, whereupon we ended QEMU.
        last_words: QEMU's last line.
    """
    if failed_accelerator is not None:
        return VmExit(reason=f"{failed_accelerator} could not run the guest", orderly=False)
    # panic=-1 on the kernel's command line makes a panic a reset.
    if panic and shutdown_reason in {"guest-reset", "guest-panic"}:
        return VmExit(reason=f"guest panicked: {panic}", orderly=False)
    if shutdown_reason is not None:
        reason, orderly = _ENDS.get(shutdown_reason, (f"QEMU ended: {shutdown_reason}", False))
        return VmExit(reason=reason, orderly=orderly)
    if status < 0:
        return VmExit(reason=f"ended by {process.describe_status(status)}", orderly=False)
    what = f"QEMU ended with {process.describe_status(status)}"
    return VmExit(reason=f"{what}: {last_words}" if last_words else what, orderly=False)


class QemuVmm:
    """Virtual machines by QEMU.

    Args:
        arch: Architecture of the guests.
        vsock: Carry control over vhost-vsock where the host lets us use it. Off by default: a virtio-serial port
            works everywhere.
    """

    name = "qemu"

    def __init__(self, arch: Arch, *, vsock: bool = False) -> None:
        self._arch = arch
        self._vsock = vsock

    def version(self) -> str:
        """Version for people.

        Raises:
            NotFoundError: QEMU is not installed.
            UnsupportedError: It is too old.
        """
        return binary.read_version(binary.find_qemu(self._arch)).text

    def accelerators(self) -> tuple[Accelerator, ...]:
        """What this host may offer for guests of this architecture, best first."""
        native = {"x86_64": Arch.AMD64, "aarch64": Arch.ARM64, "arm64": Arch.ARM64}
        if native.get(platform.machine()) is not self._arch:
            return (Accelerator.TCG,)
        if sys.platform == "darwin":
            return (Accelerator.HVF, Accelerator.TCG)
        if Path("/dev/kvm").exists():
            return (Accelerator.KVM, Accelerator.TCG)
        return (Accelerator.TCG,)

    @contextlib.asynccontextmanager
    async def start(
        self, spec: VmSpec, saved_machine: SavedMachine | None = None
    ) -> AsyncGenerator[QemuMachine]:
        """Run a VM for the life of the block; entered when QEMU answers, before the guest is up.

        The console log starts empty, the monitor's log is appended to. The control socket is made here and removed at
        the end; it accepts connections at once, and holds what is sent until the agent reads it.

        Args:
            spec: The machine.
            saved_machine: Go on where this one stood. Entered when the guest runs then.

        Raises:
            NotFoundError: QEMU is not installed.
            VmmError: It could not start; details hold its command line and last words.
        """
        program = binary.find_qemu(self._arch)
        async with contextlib.AsyncExitStack() as stack:
            cid = _pick_cid() if self._vsock and vsock_is_usable() else None
            listener = None
            target = f"vsock:{cid}:{CONTROL_VSOCK_PORT}"
            if cid is None:
                listener = stack.enter_context(_listen(spec.control_socket))
                target = f"unix:{spec.control_socket}"
            _make_private(spec.console_log)
            if spec.memory_file is not None:
                # QEMU leaves what is there, and pages of another machine are not ours.
                spec.memory_file.unlink(missing_ok=True)
                _make_private(spec.memory_file)
            log_start = spec.vmm_log.stat().st_size if spec.vmm_log.exists() else 0
            links = [one.socket_fd for one in spec.networks if isinstance(one, StreamNetwork)]
            taps = [network.tap_fd for network in spec.networks if isinstance(network, TapNetwork)]
            # Without KVM the kernel has no way to interrupt the guest, and vhost none to work.
            vhost_net = bool(taps) and spec.accelerator is Accelerator.KVM and vhost_net_is_usable()
            ours, theirs = socket.socketpair()
            with contextlib.ExitStack() as given:
                given.enter_context(theirs)
                with trace.span("open the saved machine"):
                    restoring = _Restoring.prepare(spec, saved_machine, given, stack)
                argv = cmdline.build_argv(
                    program,
                    spec,
                    cmdline.Channels(
                        qmp_fd=theirs.fileno(),
                        control_fd=listener.fileno() if listener else None,
                        vsock_cid=cid,
                        vhost_net=vhost_net,
                        memory=restoring.memory if restoring else None,
                        memory_is_own=restoring is not None and restoring.kept is None,
                    ),
                    without_features=broken_features(spec.accelerator, host_cpu_vendor()),
                )
                fds = [theirs.fileno(), *([listener.fileno()] if listener else [])]
                fds += [*(share.socket_fd for share in spec.shares), *taps, *links]
                fds += restoring.fds if restoring else []
                try:
                    with trace.span("spawn QEMU"):
                        child = process.spawn(
                            argv,
                            log_path=spec.vmm_log,
                            pass_fds=fds,
                            in_child=restoring.kept.install
                            if restoring and restoring.kept
                            else None,
                        )
                except BaseException:
                    ours.close()
                    raise
            if listener is not None:
                # From here on QEMU's copy is the only one: a client learns at once when it is gone.
                listener.close()
            vm = QemuMachine(spec, child, target)
            stack.push_async_callback(vm.close)
            if restoring is not None and restoring.kept is not None:
                restoring.kept.serve()
            with trace.span("QEMU puts the machine together"):
                await _connect(vm, ours, child, spec, log_start)
            if restoring is not None:
                await vm.restore(restoring.state, restoring.channel, restoring.channel_fd)
            yield vm


@dataclass(frozen=True, slots=True, kw_only=True)
class _Restoring:
    """What QEMU is given to go on where a saved machine stood."""

    memory: Path
    """As QEMU opens it."""
    state: bytes
    channel: socket.socket
    """Carries the state; ours."""
    channel_fd: int
    """QEMU's end."""
    fds: list[int]
    """For QEMU to inherit."""
    kept: KeptFile | None
    """The memory, if it is not this machine's own."""

    @classmethod
    def prepare(
        cls,
        spec: VmSpec,
        machine: SavedMachine | None,
        given: contextlib.ExitStack,
        stack: contextlib.AsyncExitStack,
    ) -> "_Restoring | None":
        """Open it: what QEMU has is closed with ``given``, what is ours with ``stack``.

        Raises:
            VmmError: The saved memory cannot be used.
        """
        if machine is None:
            return None
        state = saved.read_state(machine.state)
        ours, theirs = socket.socketpair()
        stack.callback(ours.close)
        given.enter_context(theirs)
        fds, memory = [theirs.fileno()], machine.memory
        # File servers write to a guest's memory directly.
        if not spec.shares and discards.is_usable():
            kept = _keep(memory)
            stack.callback(kept.close)
        else:
            kept = None
            copy = saved.copy_memory(memory, spec.memory_bytes)
            given.callback(os.close, copy)
            fds.append(copy)
            memory = Path(f"/proc/self/fd/{copy}")
        return cls(
            memory=memory,
            state=state,
            channel=ours,
            channel_fd=theirs.fileno(),
            fds=fds,
            kept=kept,
        )


def _keep(memory: Path) -> KeptFile:
    try:
        return KeptFile(memory)
    except OSError as error:
        raise VmmError(f"cannot open the saved memory {memory}: {error.strerror}") from error


async def _connect(
    vm: QemuMachine, sock: socket.socket, child: process.Child, spec: VmSpec, log_start: int
) -> None:
    try:
        async with asyncio.timeout(GREETING_TIMEOUT_S):
            await vm.connect(sock)
    except TimeoutError as error:
        raise VmmTimeoutError(
            f"QEMU for {spec.name} did not answer within {GREETING_TIMEOUT_S:g} s",
            details=_facts(child, spec.vmm_log, log_start),
        ) from error
    except QmpClosedError as error:
        # It usually ends by itself, and then its status and last words are the reason; if not, it is of no use.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_EVENTS_S):
                await child.wait()
        status = child.status
        how = process.describe_status(status) if status is not None else error.message
        words = console.tail(spec.vmm_log, _STDERR_TAIL_BYTES, start=log_start)
        last = console.printable(_last_line(words))
        raise VmmError(
            f"QEMU for {spec.name} could not start ({how})" + (f": {last}" if last else ""),
            details=_facts(child, spec.vmm_log, log_start),
            hint=next((hint for sign, hint in _HINTS if sign in words), None),
        ) from error


def broken_features(accelerator: Accelerator, cpu_vendor: str) -> tuple[str, ...]:
    """Processor features that KVM offers and then refuses.

    The register IA32_ARCH_CAPABILITIES is Intel's. KVM offers it on AMD too, and under another hypervisor (as on
    hosted CI machines) may refuse to set it, whereupon QEMU aborts: "failed to set MSR 0x10a". An AMD guest has no
    use for it, and QEMU 10.1 no longer offers it there.
    """
    if accelerator is Accelerator.KVM and cpu_vendor == "AuthenticAMD":
        return ("arch-capabilities",)
    return ()


def host_cpu_vendor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The vendor as x86 processors say it; empty for others."""
    try:
        with cpuinfo.open("rb") as stream:
            # The first processor's second line.
            match = re.search(rb"^vendor_id\s*:\s*(\w+)", stream.read(4096), re.MULTILINE)
    except OSError:
        return ""
    return match[1].decode() if match else ""


def vsock_is_usable() -> bool:
    """Whether this process may give a VM a vsock device."""
    return _opens("/dev/vhost-vsock")


def vhost_net_is_usable() -> bool:
    """Whether the kernel may move the frames of a VM's taps."""
    return _opens("/dev/vhost-net")


def _opens(device: str) -> bool:
    try:
        os.close(os.open(device, os.O_RDWR))
    except OSError:
        return False
    return True


def _pick_cid() -> int:
    import secrets

    # 0 to 2 and the highest mean something (linux/vm_sockets.h). Whoever draws one that is in use fails to start.
    return 3 + secrets.randbelow(0x7FFF_FFFF - 3)


@contextlib.contextmanager
def _listen(path: Path) -> Generator[socket.socket]:
    """A listening socket at ``path``, for us alone; one left by a process that died is replaced."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            path.unlink(missing_ok=True)
            listener.bind(os.fspath(path))
            path.chmod(0o600)
            listener.listen(1)
        except OSError as error:
            raise VmmError(f"cannot make the socket {path}: {error.strerror or error}") from error
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _make_private(path: Path) -> None:
    """An empty file only we can read."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))


def _dicts(values: object) -> list[Mapping[str, object]]:
    """Those of QEMU's answers that are objects."""
    items = cast("list[object]", values) if isinstance(values, list) else []
    return [cast("Mapping[str, object]", item) for item in items if isinstance(item, dict)]


def _facts(child: process.Child, vmm_log: Path, log_start: int) -> str:
    words = console.tail(vmm_log, _STDERR_TAIL_BYTES, start=log_start).decode("utf-8", "replace")
    return f"{cmdline.describe(child.argv)}\n{words}".strip()


def _last_line(text: bytes) -> bytes:
    lines = text.strip().splitlines()
    return lines[-1] if lines else b""
