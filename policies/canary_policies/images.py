"""Which images run."""

import re
from collections.abc import Iterator
from typing import Any, Final

from canary_policies.objects import UNKNOWN, WORKLOADS, Object, containers, get, items, pod_spec, text
from canary_policies.rule import Config, ResourceRule, Severity

_DEFAULT_REGISTRY: Final = "docker.io"
_DIGEST: Final = re.compile(r"[^@]+@(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})")


def _references(found: Object) -> Iterator[tuple[str, Any]]:
    """Return title and image of each container and each volume that is an image."""
    for container in containers(found):
        yield container.title, get(container.body, "image")
    for volume in items(pod_spec(found), "volumes"):
        if get(volume, "image"):
            yield f"volume {text(volume, 'name')}", get(volume, "image", "reference")


def _images(found: Object) -> Iterator[tuple[str, str]]:
    """Return those whose image is there and known."""
    for title, image in _references(found):
        if isinstance(image, str) and image:
            yield title, image


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
    return _canonical(name) if _is_host(first) else f"{_DEFAULT_REGISTRY}/{name}"


def _is_host(first: str) -> bool:
    return "." in first or ":" in first or first == "localhost"


def _canonical(name: str) -> str:
    host, slash, path = name.partition("/")
    return f"{_DEFAULT_REGISTRY}{slash}{path}" if host == f"index.{_DEFAULT_REGISTRY}" else name


def _without_host(config: Config) -> str:
    wrong = [prefix for prefix in config["registries"] if not _is_host(prefix.partition("/")[0])]
    return (
        f"registries: {', '.join(wrong)} names no registry: write HOST or HOST/FOLDER, as docker.io/example"
        if wrong
        else ""
    )


def _pinned(found: Object, config: Config) -> Iterator[str]:
    for title, image in _references(found):
        if image is UNKNOWN:
            continue
        if not isinstance(image, str) or not image:
            yield f"{title} names no image"
        elif "@" in image:
            if not _DIGEST.fullmatch(image):
                yield f"{title} runs {image}, whose digest is malformed"
        elif not _tag(image):
            yield f"{title} runs {image}, which has no tag and so means latest"
        elif _tag(image) in config["movingTags"]:
            yield f"{title} runs {image}, whose tag moves"


def _registry(found: Object, config: Config) -> Iterator[str]:
    allowed = [_canonical(prefix.rstrip("/")) for prefix in config["registries"]]
    for title, image in _images(found):
        repository = _repository(image)
        if allowed and not any(repository == prefix or repository.startswith(f"{prefix}/") for prefix in allowed):
            yield f"{title} runs {image}, which is not from {' or '.join(allowed)}"


def _digest(found: Object, _: Config) -> Iterator[str]:
    for title, image in _images(found):
        if not _DIGEST.fullmatch(image):
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
        objection=_without_host,
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
