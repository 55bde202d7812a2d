"""`Client.networks`: what containers are attached to."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from woodlot.network import selection

if TYPE_CHECKING:
    from woodlot.container.prune import Pruned
    from woodlot.filters import Given
    from woodlot.network.network import Network
    from woodlot.network.switch import Member
    from woodlot.store.store import Store

Driver = Literal["switch", "bridge"]
FILTERS = selection.KEYS
PRUNE_FILTERS = selection.PRUNE_KEYS


class Networks:
    """The networks of one installation; ``default`` is always there."""

    def __init__(self, store: "Store") -> None:
        self._store = store

    def create(
        self,
        name: str,
        *,
        subnet: str | None = None,
        ipv6: bool = True,
        subnet_v6: str | None = None,
        internal: bool = False,
        egress: str | Sequence[str] = (),
        driver: Driver = "switch",
        labels: Mapping[str, str] | Sequence[str] = (),
    ) -> "Network":
        """Make a network; nothing runs until a container is attached.

        Args:
            name: Of the network.
            subnet: IPv4, in CIDR notation; None for a free one.
            ipv6: Give containers IPv6 addresses, too.
            subnet_v6: IPv6, a /64; None for a free one.
            internal: Let nobody out of it.
            egress: What containers that do not say otherwise may reach beyond it: ``all``, ``none``, ``allow=HOST[:PORT],…``.
            driver: What carries frames: a process of yours, or the kernel, which takes root.
            labels: ``{"key": "value"}``, or ``["key=value", "key"]``.

        Raises:
            AlreadyExistsError: The name is taken.
            ConfigError: The name or a subnet cannot be used.
            UnsupportedError: The driver is none for this user or this host.
        """
        from woodlot.container.options import read_labels
        from woodlot.network import egress as policies
        from woodlot.network import network

        allowed = (egress,) if isinstance(egress, str) else egress
        return network.create(
            self._store,
            name,
            subnet=subnet,
            ipv6=ipv6,
            subnet_v6=subnet_v6,
            internal=internal,
            egress=policies.join(allowed) if allowed else None,
            driver=network.Driver(driver),
            labels=read_labels(labels),
        )

    def list(self, *, filters: "Given | None" = None) -> "Sequence[Network]":
        """The networks that meet all conditions: the default network, then those that were made, oldest first.

        Args:
            filters: As ``container network list --filter``.

        Raises:
            ConfigError: A condition is none.
        """
        from woodlot.network.selection import select

        return select(self._store, filters)

    def names(self) -> Sequence[str]:
        """Names of the networks that were made; ``default`` is not among them."""
        return [one.name for one in self._store.networks.list()]

    def get(self, name: str) -> "Network":
        """The network of that name, id or unique start of an id.

        Raises:
            NotFoundError: There is none.
        """
        from woodlot.network.network import find

        return find(self._store, name)

    def is_running(self, network: "Network") -> bool:
        """Whether containers are attached to it, or were a moment ago."""
        from woodlot.network.switch import is_running

        return is_running(self._store.paths, network)

    async def members(self, network: "Network") -> "Sequence[Member]":
        """Who is attached to it now."""
        from woodlot.network.switch import members

        return await members(self._store.paths, network)

    async def delete(self, name: str) -> None:
        """Remove a network to which no container is attached.

        Raises:
            NotFoundError: There is none.
            ConfigError: It is the default network.
            StateError: A container is attached to it.
        """
        from woodlot.network.remove import delete

        await delete(self._store, self.get(name))

    async def prune(self, *, filters: "Given | None" = None) -> "Pruned":
        """Remove the networks that no container names, running or stopped.

        Args:
            filters: As ``container network prune --filter``.

        Raises:
            ConfigError: A condition is none.
        """
        from woodlot.container.prune import prune_networks

        return await prune_networks(self._store, filters or {})
