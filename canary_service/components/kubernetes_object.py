"""Registers a manifest as it stands.

The classes of `pulumi_kubernetes` do the same through generated types, whose import alone costs more than all the
rest of this program (docs/adr/0002-thin-resources.md). Type tokens and so URNs are the same as theirs.
"""

from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from typing import Final

import pulumi

from canary_service.routing.router import Manifest
from canary_service.workload.live import DECLARED_ANNOTATION, FIELD_MANAGER, OWNER_ANNOTATION

ENGINE_ANNOTATIONS: Final = {
    # Who changes an object by hand (`kubectl annotate`) owns that field in server-side apply, and the next preview
    # ends with a conflict. The stack file is the truth: what it declares is put back.
    "pulumi.com/patchForce": "true",
    # One name for all writes, so that what others wrote can be told and put right (docs/adr/0009-drift.md).
    "pulumi.com/patchFieldManager": FIELD_MANAGER,
}

# The provider's own waits are replaced (docs/adr/0003-await.md). On a Deployment `skipAwait` would also skip the wait
# for its deletion, and its pods could outlive their Service; a condition that always holds does not.
SKIP_AWAIT: Final = {"pulumi.com/skipAwait": "true"}
NO_CONDITION: Final = {"pulumi.com/waitFor": "jsonpath={.metadata.uid}"}


def annotated(manifest: Manifest, declared_as: str = "") -> Manifest:
    """Return a manifest with what the provider reads from its annotations, and the stack that it belongs to.

    `declared_as` is DECLARED_ANNOTATION, empty for none.
    """
    metadata = manifest["metadata"]
    wait = NO_CONDITION if manifest["kind"] == "Deployment" else SKIP_AWAIT
    owner = {OWNER_ANNOTATION: f"{pulumi.get_project()}/{pulumi.get_stack()}"}
    if declared_as:
        owner[DECLARED_ANNOTATION] = declared_as
    annotations = metadata.get("annotations", {}) | ENGINE_ANNOTATIONS | wait | owner
    return manifest | {"metadata": metadata | {"annotations": annotations}}


class KubernetesObject(pulumi.CustomResource):
    """One object of the Kubernetes provider.

    Its URN name is the object's own name, by which users and `--target` refer to it, after `prefix`. `formerly` give,
    by its type and that name, URNs that it may have had. `metadata` is what the API server gave back.
    """

    metadata: pulumi.Output[Manifest]

    def __init__(
        self,
        manifest: Manifest,
        opts: pulumi.ResourceOptions,
        *,
        other_versions: Sequence[str] = (),
        prefix: str = "",
        formerly: Sequence[Callable[[str, str], str]] = (),
    ) -> None:
        kind: str = manifest["kind"]
        # Under another type it would be another object, and the one that is there would be deleted afterwards.
        name, types = manifest["metadata"]["name"], [_type(each, kind) for each in other_versions]
        aliases: list[pulumi.Input[str | pulumi.Alias]] = [pulumi.Alias(type_=each) for each in types]
        aliases += [urn(each, name) for urn in formerly for each in (_type(manifest["apiVersion"], kind), *types)]
        own = pulumi.ResourceOptions(version=provider_version(), aliases=aliases)
        super().__init__(
            _type(manifest["apiVersion"], kind),
            prefix + name,
            manifest,
            pulumi.ResourceOptions.merge(own, opts),
        )


def _type(api_version: str, kind: str) -> str:
    group = api_version if "/" in api_version else f"core/{api_version}"
    return f"kubernetes:{group}:{kind}"


@cache
def provider_version() -> str:
    """Return the version of the installed SDK, which is also that of its provider."""
    return version("pulumi-kubernetes")
