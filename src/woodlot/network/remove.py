"""Deleting networks."""

import shutil

from woodlot.errors import ConfigError, NetworkError, StateError
from woodlot.network import switch
from woodlot.network.network import DEFAULT, Network
from woodlot.network.selection import used_names
from woodlot.store.store import Store


async def delete(store: Store, found: Network) -> None:
    """Delete a network to which no container is attached.

    Raises:
        ConfigError: It is the default network.
        StateError: A container is attached to it.
    """
    await _delete(store, found, unless_named=False)


async def prune(store: Store, candidates: list[Network]) -> list[str]:
    """Delete those networks that no container names, running or stopped; their names.

    One that a container comes to name or to use meanwhile stays.
    """
    removed: list[str] = []
    for found in candidates:
        if found.name == DEFAULT:
            continue
        try:
            await _delete(store, found, unless_named=True)
        except (StateError, NetworkError):
            continue
        removed.append(found.name)
    return removed


async def _delete(store: Store, found: Network, *, unless_named: bool) -> None:
    if found.name == DEFAULT:
        raise ConfigError("the network default cannot be deleted")
    paths = store.paths
    async with switch.locked(paths, found):
        members = await switch.members(paths, found)
        if members:
            names = ", ".join(sorted(member.names[0] for member in members))
            raise StateError(
                f"network {found.name} is in use by {names}",
                hint="stop what is attached to it first",
            )
        # One transaction: a container is recorded before it or after it.
        with store.database.transaction():
            if unless_named and found.name in used_names(store):
                raise StateError(f"network {found.name} is named by a container")
            store.networks.delete(found.id)
        # Left by a switch that was killed.
        paths.switch_socket(found.id).unlink(missing_ok=True)
    # A switch that has not left yet ends without its lock's directory, too.
    shutil.rmtree(paths.network(found.id), ignore_errors=True)
