"""One container: its life, its process and others in it, what it printed, its files."""

from woodlot.aio.files import FileAccess
from woodlot.aio.life import Life
from woodlot.aio.logs import Log
from woodlot.aio.processes import Executor


class Container(Life, Executor, Log, FileAccess):
    """One container; made by `Client.run` and `Client.containers`."""
