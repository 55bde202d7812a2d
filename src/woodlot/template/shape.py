"""What a saved machine can stand in for: everything that shapes a machine, and nothing that is one container's own."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from woodlot.vmm import accelerator
from woodlot.vmm.base import Disk, SavedMachine, UnconnectedNetwork, VmSpec

# Raised when saved machines of before are of no use: their layout, or what is told to the guest after a start.
_FORMAT = 2


def describe(spec: VmSpec, program: Path, guest: str) -> dict[str, object]:
    """All that a saved machine depends on; two machines with the same description can start from the same one.

    Args:
        spec: The machine.
        program: The monitor's executable.
        guest: What tells one guest's kernel and agent from another's, such as digests.
    """
    return {
        "format": _FORMAT,
        **accelerator.host_facts(program, guest),
        "arch": spec.arch.value,
        "accelerator": spec.accelerator.value,
        "vcpus": spec.vcpus,
        "memory_bytes": spec.memory_bytes,
        "kernel_cmdline": list(spec.kernel_cmdline),
        "disks": ["ro" if disk.read_only else "rw" for disk in spec.disks],
        "networks": len(spec.networks),
    }


def build_id(description: Mapping[str, object]) -> str:
    """The name of the saved machine with that description."""
    text = json.dumps(description, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def device_mac(index: int) -> str:
    """The address that a network card has in every saved machine; each container's own takes its place."""
    return f"02:00:00:00:00:{index + 1:02x}"


def to_be_saved(spec: VmSpec, directory: Path, sockets: Path) -> VmSpec:
    """The machine to boot and save, of which ``spec`` is to start.

    Args:
        spec: The machine that is wanted.
        directory: Where its files are made; see `files`.
        sockets: For its sockets.
    """
    return replace(
        spec,
        name="template",
        disks=tuple(
            Disk(path=None, serial=f"place{index}", read_only=disk.read_only)
            for index, disk in enumerate(spec.disks)
        ),
        shares=(),
        networks=tuple(
            UnconnectedNetwork(mac=device_mac(index)) for index in range(len(spec.networks))
        ),
        memory_file=files(directory).memory,
        control_socket=sockets / "a.sock",
        console_log=directory / "console.log",
        vmm_log=directory / "vmm.log",
    )


def files(directory: Path) -> SavedMachine:
    """The files of a saved machine in its directory."""
    return SavedMachine(memory=directory / "memory", state=directory / "state")
