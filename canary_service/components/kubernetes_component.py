"""What the components have in common: objects that are put back as declared when others have changed them."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import pulumi

from canary_service.cluster.errors import ClusterError
from canary_service.cluster.live_cluster import LiveCluster
from canary_service.components.kubernetes_object import KubernetesObject, annotated
from canary_service.routing.router import Manifest

Acted = TypeVar("Acted")

# Waits sleep most of their time; the engine itself works on few objects at once (4 per processor).
_WAITS: Final = ThreadPoolExecutor(max_workers=32, thread_name_prefix="wait")


class KubernetesComponent(pulumi.ComponentResource):
    """A component of Kubernetes objects.

    `_cluster` is where they are, None in a preview that has no cluster; `_kubernetes` makes them, None for the one that
    the component has from its parents. `_prefix` begins the names of their resources, where those of the objects alone
    could be those of others in the program; `_declared_as` is DECLARED_ANNOTATION of the objects, empty for none, and
    `_formerly` their URNs, by type and name, as what they were declared as before. `_waits` are over when nothing acts
    on the cluster any more.
    """

    def __init__(
        self, kind: str, name: str, cluster: LiveCluster | None = None, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(f"canary:index:{kind}", name, None, opts)
        self._cluster = cluster
        self._kubernetes: pulumi.ProviderResource | None = None
        self._prefix = ""
        self._declared_as = ""
        self._formerly: Sequence[Callable[[str, str], str]] = ()
        self._waits: list[pulumi.Output[Any]] = []

    def _object(  # noqa: PLR0913 - what the engine is told of an object
        self,
        manifest: Manifest,
        depends_on: Sequence[pulumi.Resource],
        waits: Sequence[pulumi.Output[None]] = (),
        ignore_changes: Sequence[str] = (),
        *,
        retain_on_delete: bool = False,
        other_versions: Sequence[str] = (),
    ) -> KubernetesObject:
        manifest = annotated(manifest, self._declared_as)
        if self._cluster and self._cluster.declared.lost(manifest):
            # The provider cannot update what is not there, and the engine does not create what its state has.
            if pulumi.runtime.is_dry_run():
                ignore_changes = [*ignore_changes, "metadata", "spec"]
            else:
                waits = [self._bring_back(manifest, pulumi.Output.all(*waits))]
        made = KubernetesObject(
            _after(self._hidden(manifest), waits),
            pulumi.ResourceOptions(
                parent=self,
                provider=self._kubernetes,
                depends_on=list(depends_on),
                ignore_changes=list(ignore_changes),
                retain_on_delete=retain_on_delete,
            ),
            other_versions=other_versions,
            prefix=self._prefix,
            formerly=self._formerly,
        )
        self._put_right(manifest, made, scaled="spec.replicas" in ignore_changes)
        return made

    def _hidden(self, manifest: Manifest) -> Manifest:
        """Mark what must show neither in previews nor in the state; unless overridden, that is nothing."""
        return manifest

    def _put_right(self, manifest: Manifest, made: KubernetesObject, *, scaled: bool) -> None:
        """Apply an object again that others have changed: the engine compares with its state and does not see it."""
        cluster = self._cluster
        drift = cluster.declared.drift(manifest, keep_replicas=scaled) if cluster else None
        if not cluster or not drift:
            return
        preview = pulumi.runtime.is_dry_run()
        text = f"{manifest['kind']} {manifest['metadata']['name']} {drift.text}"
        text += ": `pulumi up` applies what is declared" if preview else ": put back as declared"
        loop = asyncio.get_running_loop()

        def restore(metadata: Manifest) -> Manifest:
            if preview and not drift.left_by_engine(metadata):
                return metadata
            restored = cluster.declared.restore(manifest, keep_replicas=scaled, dry_run=preview)
            if restored:
                loop.call_soon_threadsafe(pulumi.log.warn, text, made)
            return restored["metadata"] if restored else metadata

        # What waits for this object waits for that too.
        made.metadata = self._in_thread(made.metadata, restore)

    def _bring_back(self, manifest: Manifest, after: pulumi.Output[Any]) -> pulumi.Output[None]:
        """Make an object that something else has deleted."""
        loop = asyncio.get_running_loop()

        def make(_: object) -> None:
            if self._cluster and self._cluster.declared.restore(manifest):
                text = f"{manifest['kind']} {manifest['metadata']['name']} was missing: put back as declared"
                loop.call_soon_threadsafe(pulumi.log.warn, text, self)

        return self._in_thread(after, make)

    def _in_thread(self, value: pulumi.Output[Any], act: Callable[[Any], Acted]) -> pulumi.Output[Acted]:
        """Return what comes of acting upon a value in a thread, once it is known."""

        async def acted(known: object) -> Acted:
            try:
                return await asyncio.get_running_loop().run_in_executor(_WAITS, act, known)
            except ClusterError as error:
                # RunError ends the program with its message alone, without a traceback.
                raise pulumi.RunError(str(error)) from None

        done: pulumi.Output[Acted] = value.apply(acted)
        self._waits.append(done)
        return done


def _after(manifest: Manifest, waits: Sequence[pulumi.Output[None]]) -> Manifest:
    """Hold a manifest back until all waits are over."""
    if not waits:
        return manifest
    spec = manifest["spec"]
    return manifest | {"spec": pulumi.Output.all(*waits).apply(lambda _: spec)}
