"""The states of a container, to tell `Container.state` apart."""

from woodlot.container.state import (
    KILLED_EXIT_CODE,
    Created,
    Health,
    Paused,
    Probe,
    Restarting,
    Running,
    Starting,
    State,
    Stopped,
    label,
)

__all__ = [
    "KILLED_EXIT_CODE",
    "Created",
    "Health",
    "Paused",
    "Probe",
    "Restarting",
    "Running",
    "Starting",
    "State",
    "Stopped",
    "label",
]
