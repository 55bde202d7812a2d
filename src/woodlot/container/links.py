"""The networks of one running container: joined before its VM starts, left when it has ended."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from woodlot import settings
from woodlot.container import etcfiles
from woodlot.container.network import (
    build_mac,
    host_search_domains,
    names_of,
    parse_host_ports,
)
from woodlot.container.spec import HOST_GATEWAY, ContainerSpec, NetworkSpec
from woodlot.paths import Paths
from woodlot.store.store import Store
from woodlot.template.shape import device_mac
from woodlot.vmm.base import NetworkDevice, StreamNetwork, TapNetwork

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Sequence

    from woodlot._pb.agent.v1 import agent_pb2
    from woodlot.network.link import Link
    from woodlot.network.network import Network
    from woodlot.network.switch import Attachment, Lease, Port

# Docker's: a name without a dot is asked for as it is, before the search domains are tried.
_RESOLV_OPTIONS = ("ndots:0",)


class Links:
    """What a container has been given by its networks; empty for one without network, and until they are joined."""

    def __init__(self, spec: ContainerSpec) -> None:
        self._spec = spec
        self._networks: list[Network] = []
        self._links: list[Link | None] = []
        self._attachments: list[Attachment] = []
        self.ports: tuple[Port, ...] = ()
        """Published ports, with the addresses and numbers they were given."""

    @contextmanager
    def plugged(self, store: Store, links: "Sequence[Link]" = ()) -> "Generator[None]":
        """Make the VM's cards, so that it can be started while the networks are being joined.

        Args:
            store: Where the networks are found.
            links: Those of a VM that runs, one for each network; closed in the end.

        Raises:
            NotFoundError: A network is not there.
        """
        from woodlot.network import network
        from woodlot.network.link import Link

        self._networks = [network.find(store, one.network) for one in self._spec.networks]
        self._links = [
            None if one.driver is network.Driver.BRIDGE else links[index] if links else Link()
            for index, one in enumerate(self._networks)
        ]
        try:
            yield
        finally:
            for link in (*links, *filter(None, self._links)):
                link.close()

    @property
    def come_first(self) -> bool:
        """Whether a card of the VM's is there only once its network is joined: a tap."""
        return None in self._links

    def handed_over(self) -> None:
        """The VM's monitor runs: from now on it alone holds its ends of the links."""
        for link in filter(None, self._links):
            link.handed_over()

    @asynccontextmanager
    async def joined(self, paths: Paths) -> "AsyncGenerator[None]":
        """Join the networks and open the ports, for the life of the block.

        Raises:
            AlreadyExistsError: An address or a port is in use.
            WoodlotError: Why it cannot be joined.
        """
        if not self._networks:
            yield
            return
        from woodlot.network.switch import Port

        sockets = paths.machine_sockets(self._spec.id)
        sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with AsyncExitStack() as stack:
            for index, wanted in enumerate(self._spec.networks):
                path = sockets / f"n{index}.sock"
                await stack.enter_async_context(self._join(paths, index, wanted, path))
            # One switch opens a port; the container is behind it in the first network.
            first = self._attachments[0]
            self.ports = tuple(
                [
                    opened
                    for port in self._spec.ports
                    for opened in await first.publish(Port(**asdict(port)))
                ]
            )
            yield

    @asynccontextmanager
    async def _join(
        self, paths: Paths, index: int, wanted: NetworkSpec, path: Path
    ) -> "AsyncGenerator[None]":
        from woodlot.network import egress, switch

        spec, joined = self._spec, self._networks[index]
        request = switch.Wanted(
            container_id=spec.id,
            mac=self._mac(wanted),
            socket_path=path,
            link=self._links[index],
            names=names_of(spec, wanted),
            ip=wanted.ip,
            host_ports=parse_host_ports(settings.get_str("network.host_ports")),
            nameservers=spec.dns.nameservers,
            egress=egress.parse(spec.egress or joined.egress),
            others=tuple(one for one in self._networks if one is not joined),
        )
        async with switch.attach(paths, joined, request) as attachment:
            self._attachments.append(attachment)
            yield

    def _mac(self, wanted: NetworkSpec) -> str:
        return wanted.mac or build_mac(self._spec.id, wanted.network)

    @property
    def leases(self) -> "Sequence[Lease]":
        """What each network gave, in the order of the spec."""
        return [attachment.lease for attachment in self._attachments]

    @property
    def devices(self) -> tuple[NetworkDevice, ...]:
        """The VM's network cards."""
        devices: list[NetworkDevice] = []
        for index, (wanted, link) in enumerate(zip(self._spec.networks, self._links, strict=False)):
            if link is not None:
                devices.append(StreamNetwork(mac=self._mac(wanted), socket_fd=link.fd))
            elif (tap_fd := self._attachments[index].tap_fd) is not None:
                devices.append(TapNetwork(mac=self._mac(wanted), tap_fd=tap_fd))
        return tuple(devices)

    async def lost(self) -> str:
        """Return when a network is gone, and why; never without networks."""
        futures = [attachment.lost for attachment in self._attachments]
        if not futures:
            await asyncio.Event().wait()
        done, _ = await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        return "; ".join(sorted(future.result() for future in done))

    # What the guest is told.

    def interface_requests(self, *, restored: bool) -> "list[agent_pb2.NetworkInterface]":
        """Its interfaces; the first that leads anywhere has the default route.

        Args:
            restored: The guest was started from a template, and its cards have the template's addresses still.
        """
        from woodlot._pb.agent.v1 import agent_pb2

        way_out = self._way_out()
        interfaces: list[agent_pb2.NetworkInterface] = []
        for index, lease in enumerate(self.leases):
            interface = agent_pb2.NetworkInterface(
                mac=lease.mac,
                device_mac=device_mac(index) if restored else "",
                name=f"eth{index}",
                addresses=[f"{lease.ip}/{lease.prefix_length}"],
                mtu=lease.mtu,
            )
            if lease.ip_v6:
                interface.addresses.append(f"{lease.ip_v6}/{lease.prefix_length_v6}")
            if lease is way_out:
                interface.routes.add(destination="0.0.0.0/0", gateway=lease.gateway)
                if lease.gateway_v6:
                    interface.routes.add(destination="::/0", gateway=lease.gateway_v6)
            interfaces.append(interface)
        return interfaces

    def etc_files(self) -> dict[str, bytes]:
        """The files of /etc that say who it is and whom it asks."""
        spec, leases = self._spec, self.leases
        hosts = [
            (name, leases[0].host if address == HOST_GATEWAY and leases else address)
            for name, address in spec.dns.hosts
        ]
        files = {
            "hosts": etcfiles.build_hosts(
                spec.hostname,
                [ip for lease in leases for ip in (lease.ip, lease.ip_v6) if ip],
                more=[(name, address) for name, address in hosts if address != HOST_GATEWAY],
            ),
            "hostname": etcfiles.build_hostname(spec.hostname),
        }
        if spec.dns.enabled:
            files["resolv.conf"] = self._resolv_conf()
        return files

    def _resolv_conf(self) -> bytes:
        dns, leases = self._spec.dns, self.leases
        if not leases:
            return etcfiles.build_resolv_conf((), search=dns.search or (), options=dns.options)
        search = host_search_domains() if dns.search is None else dns.search
        # It knows the names of all of them, and of the world if there is a way.
        resolver = self._way_out() or leases[0]
        return etcfiles.build_resolv_conf(
            [resolver.gateway], search=search, options=dns.options or _RESOLV_OPTIONS
        )

    def _way_out(self) -> "Lease | None":
        return next((lease for lease in self.leases if not lease.internal), None)
