"""Everything on disk: blobs, images, containers, networks."""

import contextlib
import shutil
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

from woodlot.oci.digest import Digest, hex_of
from woodlot.paths import Paths
from woodlot.store.containers import ContainerRecords
from woodlot.store.content import ContentStore
from woodlot.store.db import Database
from woodlot.store.events import EventLog
from woodlot.store.images import ImageRecords
from woodlot.store.locks import hold, hold_sync, try_hold
from woodlot.store.networks import NetworkRecords
from woodlot.store.volumes import VolumeRecords


class Store:
    """The store of one installation; cheap to make, opens things when they are used.

    Whatever is not reachable from a record may be swept away at any time, except while somebody is `using` the
    store. So: who looks something up and then records that it needs it does both inside `using`. A record of an image
    may be deleted meanwhile, unless the image is `leased`.
    """

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.database = Database(paths.database)
        self.content = ContentStore(paths.content)
        self.events = EventLog(paths.events)
        self.images = ImageRecords(self.database, self.events)
        self.containers = ContainerRecords(self.database, self.events)
        self.networks = NetworkRecords(self.database, self.events)
        self.volumes = VolumeRecords(self.database, self.events)
        self._lock = paths.data / "store.lock"
        self._leases = paths.data / "leases"

    @contextlib.asynccontextmanager
    async def using(self) -> AsyncGenerator[None]:
        """Nothing is swept away during the block; waits for a sweep that is under way."""
        async with hold(self._lock, shared=True):
            yield

    @contextlib.contextmanager
    def using_sync(self) -> Generator[None]:
        """As `using`, blocking the thread while it waits."""
        with hold_sync(self._lock, shared=True):
            yield

    @contextlib.contextmanager
    def try_sweeping(self) -> Generator[bool]:
        """Nobody else uses the store during the block, if it is told True; never waits."""
        with try_hold(self._lock) as held:
            yield held

    @contextlib.contextmanager
    def leased(self, image: Digest) -> Generator[None]:
        """Nobody deletes a record of the index or manifest ``image`` during the block.

        Only while the store is in use, and begun in the transaction that has found the record.
        """
        with hold_sync(self._lease(image), shared=True):
            yield

    @contextlib.contextmanager
    def try_unleased(self, image: Digest) -> Generator[bool]:
        """Nobody has leased the image, if the block is told True; in the transaction that deletes the record."""
        with try_hold(self._lease(image)) as held:
            yield held

    def remove_leases(self) -> None:
        """Remove the files of leases; while sweeping nobody has one."""
        shutil.rmtree(self._leases, ignore_errors=True)

    def _lease(self, image: Digest) -> Path:
        return self._leases / hex_of(image)

    def close(self) -> None:
        """Close the database."""
        self.database.close()
