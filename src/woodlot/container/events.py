"""Events of containers, where they are known."""

from woodlot.container.spec import ContainerSpec
from woodlot.store.store import Store


def tell(store: Store, spec: ContainerSpec, action: str, **attributes: str) -> None:
    """Tell that something has happened to a container; never fails."""
    fields = {"image": spec.image, "labels": dict(spec.labels)}
    store.containers.tell(action, spec.id, spec.name, fields, **attributes)
