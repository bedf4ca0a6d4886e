"""The labels of every object, and the selector that is part of them."""

import re
from typing import Final

from canary_service.routing.split import Track

MANAGED_BY: Final = "pulumi"
VERSION_LABEL: Final = "app.kubernetes.io/version"
_LABEL_LENGTH: Final = 63


def object_name(service: str, track: Track) -> str:
    """Return the name that all objects of one track share."""
    return service if track is Track.STABLE else f"{service}-{track}"


def selector(app: str, track: Track) -> dict[str, str]:
    """Return the labels by which Deployment and Service find the pods of one track and no others."""
    return {"app": app, "version": str(track)}


def labels(service: str, track: Track, image: str | None, part_of: str, app: str | None = None) -> dict[str, str]:
    """Return the selector and the recommended labels of Kubernetes; no version when the image is not known.

    `app` is the value of the `app` label, which also names the application; without it, the service's name.

    https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/
    """
    version = {} if image is None else {VERSION_LABEL: image_version(image)}
    return (
        selector(app or service, track)
        | version
        | {
            "app.kubernetes.io/name": app or service,
            "app.kubernetes.io/instance": object_name(service, track),
            "app.kubernetes.io/component": str(track),
            "app.kubernetes.io/part-of": part_of,
            "app.kubernetes.io/managed-by": MANAGED_BY,
        }
    )


def image_version(image: str) -> str:
    """Return the tag of an image, or the start of its digest, as a valid label value."""
    reference, _, digest = image.partition("@sha256:")
    tag = reference.rpartition("/")[2].partition(":")[2]
    version = tag or digest[:12] or "latest"
    return re.sub(r"^[^A-Za-z0-9]+|[^A-Za-z0-9]+$", "", version[:_LABEL_LENGTH])
