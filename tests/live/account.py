"""A service account of rbac/: what it may do, and what it was seen to do."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from lightkube.models.authorization_v1 import ResourceAttributes, SubjectAccessReviewSpec
from lightkube.resources.authorization_v1 import SubjectAccessReview

from sandbox.state import StateFolder
from tests.live.scene import Scene

ROLES = Path(__file__).parents[2] / "rbac"
DEPLOY, OBSERVE, PREVIEW = "canary-deploy", "canary-observe", "canary-preview"

Right = tuple[str, str, str]
"""API group, resource, verb."""


def install(scene: Scene, folder: Path) -> None:
    """Bring the shipped accounts and roles into a scene's namespace, by an overlay as in docs/rbac.md."""
    overlay = folder / "overlay"
    overlay.mkdir()
    folders = (ROLES, ROLES / "routers")
    content = {"namespace": scene.namespace, "resources": [os.path.relpath(each, overlay) for each in folders]}
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(content))
    scene.kubectl("apply", "--kustomize", str(overlay))


@dataclass(frozen=True)
class Account:
    """A service account, under which the scene's `pulumi` runs."""

    scene: Scene
    name: str
    kubeconfig: Path
    log: Path

    @staticmethod
    def of(scene: Scene, name: str, folder: Path) -> "Account":
        """Write a kubeconfig of a service account into a folder."""
        token = scene.kubectl("create", "token", name).strip()
        config = yaml.safe_load(scene.sandbox.kubeconfig.read_text())
        config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
        kubeconfig = folder / f"{name}.kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(config))
        stack = replace(scene.stack, environment=dict(scene.stack.environment) | {"KUBECONFIG": str(kubeconfig)})
        cluster = StateFolder(scene.sandbox.state).control_plane / "clusters" / "sandbox"
        return Account(replace(scene, stack=stack), name, kubeconfig, cluster / "logs" / "audit.log")

    def used(self, *, allowed: bool) -> set[Right]:
        """Return the rights that the API server was asked for, and which it found or did not find."""
        return {
            right
            for event in self._events()
            if (event["annotations"]["authorization.k8s.io/decision"] == "allow") is allowed
            for right in _rights(event)
        }

    @property
    def user(self) -> str:
        """The name by which the API server knows it."""
        return f"system:serviceaccount:{self.scene.namespace}:{self.name}"

    def lacks(self, right: Right) -> bool:
        group, resource, verb = right
        attributes = ResourceAttributes(group=group, resource=resource, verb=verb, namespace=self.scene.namespace)
        review = SubjectAccessReview(spec=SubjectAccessReviewSpec(user=self.user, resourceAttributes=attributes))
        answer = self.scene.cluster.create(review).status
        return not (answer and answer.allowed)

    def _events(self) -> Iterator[dict[str, Any]]:
        events = map(json.loads, self.log.read_text().splitlines())
        return (event for event in events if event["user"]["username"] == self.user and "objectRef" in event)


def _rights(event: dict[str, Any]) -> Iterator[Right]:
    found = event["objectRef"]
    resource = "/".join(filter(None, (found["resource"], found.get("subresource"))))
    created = event["verb"] == "patch" and event["responseStatus"]["code"] == 201
    # A patch that makes its object wants the right to create it too, for which the API server logs no event of its own.
    for verb in (event["verb"], *(["create"] if created else [])):
        yield found.get("apiGroup", ""), resource, verb
