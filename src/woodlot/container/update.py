"""What can be changed of a container after it was made: its limits and its restart policy."""

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from woodlot.container import lifecycle, restart
from woodlot.container.spec import ContainerSpec, RestartPolicy
from woodlot.errors import ConfigError, LimitError
from woodlot.store.locks import unlock_and_close
from woodlot.store.store import Store
from woodlot.units import MIB
from woodlot.values import dataclass

if TYPE_CHECKING:
    from woodlot._pb.supervisor.v1 import supervisor_pb2
    from woodlot.container.machine import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """New values; None stays as it is."""

    cpus: float | None = None
    memory_bytes: int | None = None
    restart: RestartPolicy | None = None

    def apply(self, spec: ContainerSpec) -> ContainerSpec:
        """The container as it is to be.

        Raises:
            ConfigError: It cannot be so.
        """
        changed = replace(
            spec,
            cpus=spec.cpus if self.cpus is None else self.cpus,
            memory_bytes=spec.memory_bytes if self.memory_bytes is None else self.memory_bytes,
            restart=self.restart or spec.restart,
        )
        restart.check(changed.restart, remove=changed.remove)
        return changed

    def check_fits(self, machine: "Machine") -> None:
        """See that a machine that runs has as much.

        Raises:
            LimitError: It has less.
        """
        if self.cpus is not None and self.cpus > machine.max_cpus:
            raise LimitError(
                f"--cpus {self.cpus:g} is more than the {machine.max_cpus} its virtual machine was started with",
                hint="stop the container, update it, and start it again",
            )
        if self.memory_bytes is not None and self.memory_bytes > machine.max_memory_bytes:
            raise LimitError(
                f"--memory {self.memory_bytes // MIB}m is more than the {machine.max_memory_bytes // MIB}m"
                " its virtual machine was started with",
                hint="stop the container, update it, and start it again",
            )

    def changes(self) -> dict[str, object]:
        """The members of a container's spec that become others."""
        values = {
            "cpus": self.cpus,
            "memory_bytes": self.memory_bytes,
            "restart": asdict(self.restart) if self.restart else None,
        }
        return {name: value for name, value in values.items() if value is not None}


def build_update(*, cpus: float | None, memory: str | None, restart_policy: str | None) -> Update:
    """What is asked for; None stays as it is.

    Raises:
        ConfigError: A value is not valid, or there is none.
    """
    from woodlot.container.create import choose_cpus, choose_memory

    if cpus is None and memory is None and restart_policy is None:
        raise ConfigError("nothing is to be updated", hint="give --cpus, --memory or --restart")
    return Update(
        cpus=None if cpus is None else choose_cpus(cpus),
        memory_bytes=None if memory is None else choose_memory(memory),
        restart=None if restart_policy is None else restart.parse_policy(restart_policy),
    )


async def update(store: Store, container: lifecycle.Container, wanted: Update) -> None:
    """Change a container: one that runs at once, within what its machine has, one that is stopped for its next start.

    Raises:
        LimitError: Its machine has less.
        WoodlotError: Why else it stays as it is.
    """
    if container.is_live:
        from woodlot.container.client import connect

        async with connect(store.paths, container.spec.id) as supervised:
            await supervised.update(wanted)
        return
    wanted.apply(container.spec)
    lock = lifecycle.keep_stopped(store, container)
    try:
        store.containers.change_spec(container.spec.id, wanted.changes())
    finally:
        unlock_and_close(lock)


def encode_update(wanted: Update) -> "supervisor_pb2.UpdateRequest":
    """As a message."""
    from woodlot._pb.supervisor.v1 import supervisor_pb2

    return supervisor_pb2.UpdateRequest(
        cpus=wanted.cpus,
        memory_bytes=wanted.memory_bytes,
        restart=str(wanted.restart) if wanted.restart else None,
    )


def decode_update(message: "supervisor_pb2.UpdateRequest") -> Update:
    """The update in a message.

    Raises:
        ConfigError: It is not valid.
    """
    return Update(
        cpus=message.cpus if message.HasField("cpus") else None,
        memory_bytes=message.memory_bytes if message.HasField("memory_bytes") else None,
        restart=restart.parse_policy(message.restart) if message.HasField("restart") else None,
    )
