"""Which requests reach a canary whatever its weight. No I/O."""

from canary_service.config.settings import Settings


def kept_at_weight_0(settings: Settings, name: str) -> list[str]:
    """Return, in words, what goes on sending requests to the canary of a service when its weight is 0."""
    service = settings.services[name]
    if service.canary is None:
        return []
    kept = []
    if service.canary.header:
        kept.append(f"header {service.canary.header.name}: {service.canary.header.value}")
    if service.canary.cookie:
        kept.append(f"cookie {service.canary.cookie}=always")
    affinity = service.session_affinity
    if affinity and affinity.canary_behavior == "sticky" and settings.router == "nginx":
        # Traefik, which serves the same annotations, lets weight 0 end it (docs/reference.md).
        kept.append(f"session cookie {affinity.cookie_name} of a canary pod, under ingress-nginx")
    return kept
