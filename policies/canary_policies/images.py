"""Which images run."""

from collections.abc import Iterator
from typing import Final

from canary_policies.objects import UNKNOWN, WORKLOADS, Object, containers, get
from canary_policies.rule import Config, ResourceRule, Severity

_DEFAULT_REGISTRY: Final = "docker.io"


def _images(found: Object) -> Iterator[tuple[str, str]]:
    """Return title and image of each container whose image is there and known."""
    for container in containers(found):
        image = get(container.body, "image")
        if isinstance(image, str) and image:
            yield container.title, image


def _tag(image: str) -> str:
    return image.partition("@")[0].rpartition("/")[2].partition(":")[2]


def _repository(image: str) -> str:
    """Return registry and repository in full, as Docker completes them."""
    name = image.partition("@")[0]
    folder, slash, last = name.rpartition("/")
    name = folder + slash + last.partition(":")[0]
    first, slash, _ = name.partition("/")
    if not slash:
        return f"{_DEFAULT_REGISTRY}/library/{name}"
    return name if "." in first or ":" in first or first == "localhost" else f"{_DEFAULT_REGISTRY}/{name}"


def _pinned(found: Object, config: Config) -> Iterator[str]:
    for container in containers(found):
        image = get(container.body, "image")
        if image is UNKNOWN:
            continue
        if not isinstance(image, str) or not image:
            yield f"{container.title} names no image"
        elif "@" not in image and not _tag(image):
            yield f"{container.title} runs {image}, which has no tag and so means latest"
        elif "@" not in image and _tag(image) in config["movingTags"]:
            yield f"{container.title} runs {image}, whose tag moves"


def _registry(found: Object, config: Config) -> Iterator[str]:
    allowed = [prefix.rstrip("/") for prefix in config["registries"]]
    for title, image in _images(found):
        repository = _repository(image)
        if allowed and not any(repository == prefix or repository.startswith(f"{prefix}/") for prefix in allowed):
            yield f"{title} runs {image}, which is not from {' or '.join(allowed)}"


def _digest(found: Object, _: Config) -> Iterator[str]:
    for title, image in _images(found):
        if "@sha256:" not in image:
            yield f"{title} runs {image}, which names no digest"


RULES: Final = (
    ResourceRule(
        name="image-pinned",
        why="A tag that moves gives pods of one track different versions, and a rollback the wrong one",
        fix="name a version's tag or a digest",
        kinds=WORKLOADS,
        options={
            "movingTags": {
                "type": "array",
                "items": {"type": "string"},
                "default": ["latest"],
                "description": "Tags that name no version",
            }
        },
        check=_pinned,
    ),
    ResourceRule(
        name="image-registry",
        why="Images from elsewhere were not built, scanned or kept by the platform",
        fix="use an image from an allowed registry, or have its registry added to `registries`",
        kinds=WORKLOADS,
        options={
            "registries": {
                "type": "array",
                "items": {"type": "string"},
                "default": [],
                "description": "Registries, or folders in them (docker.io/example); none allows all",
            }
        },
        check=_registry,
    ),
    ResourceRule(
        name="image-digest",
        why="Only a digest says which bytes run, now and after a restart",
        fix="append the digest: image:tag@sha256:…",
        kinds=WORKLOADS,
        severity=Severity.DISABLED,
        check=_digest,
    ),
)
