"""The objects of one kind, kept as the API server has them."""

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Generic, TypeVar

from lightkube import AsyncClient
from lightkube.core.resource import NamespacedResource

_log = logging.getLogger(__name__)

_RETRY_SECONDS = 0.5

Kind = TypeVar("Kind", bound=NamespacedResource)


class Watched(Generic[Kind]):
    """Follows all objects of a kind, in every namespace; `changed` is called after each change."""

    def __init__(self, kind: type[Kind], changed: Callable[[], None] = lambda: None) -> None:
        self._kind = kind
        self._changed = changed
        self._objects: dict[str, Kind] = {}
        self.listed = False
        """Whether the objects have been listed once; before, there seem to be none."""

    @property
    def objects(self) -> Collection[Kind]:
        """The objects as they are now."""
        return self._objects.values()

    async def follow(self, client: AsyncClient) -> None:
        """Follow the API server for good, through its restarts and broken connections."""
        while True:
            try:
                listing = client.list(self._kind, namespace="*")
                self._objects = {_uid(found): found async for found in listing}
                self.listed = True
                self._changed()
                version = listing.resourceVersion
                async for change, found in client.watch(self._kind, namespace="*", resource_version=version):
                    if change == "DELETED":
                        self._objects.pop(_uid(found), None)
                    else:
                        self._objects[_uid(found)] = found
                    self._changed()
            except Exception as error:  # noqa: BLE001  whatever the API server does, what was seen last holds
                _log.warning("listing %s anew after %r", self._kind.__name__, error)
                await asyncio.sleep(_RETRY_SECONDS)


def _uid(found: NamespacedResource) -> str:
    uid: str = found.metadata.uid  # type: ignore[attr-defined]  # every kind has it
    return uid
