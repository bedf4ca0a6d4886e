"""Registers a manifest as it stands.

The classes of `pulumi_kubernetes` do the same through generated types, whose import alone costs more than all the
rest of this program (docs/adr/0002-thin-resources.md). Type tokens and so URNs are the same as theirs.
"""

from functools import cache
from importlib.metadata import version
from typing import Final

import pulumi

from routing.router import Manifest

# Who changes an object by hand (`kubectl annotate`) owns that field in server-side apply, and the next preview ends
# with a conflict. The stack file is the truth: what it declares is put back.
PATCH_FORCE: Final = {"pulumi.com/patchForce": "true"}


class KubernetesObject(pulumi.CustomResource):
    """One object of the Kubernetes provider.

    Its URN name is the object's own name, by which users and `--target` refer to it.
    """

    def __init__(self, manifest: Manifest, opts: pulumi.ResourceOptions) -> None:
        metadata = manifest["metadata"]
        metadata["annotations"] = metadata.get("annotations", {}) | PATCH_FORCE
        api_version: str = manifest["apiVersion"]
        group = api_version if "/" in api_version else f"core/{api_version}"
        super().__init__(
            f"kubernetes:{group}:{manifest['kind']}",
            metadata["name"],
            manifest,
            pulumi.ResourceOptions.merge(pulumi.ResourceOptions(version=_provider_version()), opts),
        )


@cache
def _provider_version() -> str:
    """Return the version of the installed SDK, which is also that of its provider."""
    return version("pulumi-kubernetes")
