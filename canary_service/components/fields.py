"""Which inputs say what of a component."""

from collections.abc import Mapping
from typing import Final

from canary_service.config.settings import ROUTERS_WITH_KEYS, GateSettings, Model, RolloutSettings, ServiceSettings

CONNECTION: Final = ("kubeconfig", "context")
"""Which cluster is meant, as the Kubernetes provider calls it."""

OF_STACK: Final = (
    "namespace",
    "host",
    "router",
    "ingressClassName",
    *ROUTERS_WITH_KEYS,
    "tlsSecretName",
)
"""Keys of a stack's configuration that a service on its own has, too."""

OF_SERVICE: Final = frozenset(field.alias or name for name, field in ServiceSettings.model_fields.items())

WITHOUT_RUN: Final[Mapping[type[Model], tuple[str, ...]]] = {
    RolloutSettings: ("maxStep", "gates"),
    GateSettings: (
        "errorRateDifference",
        "latencyRatio",
        "latencyDifferenceMilliseconds",
        "weightDifference",
        "minRequests",
    ),
}
"""What guards and alerts read of settings that are otherwise those of `canary run`, which is not for components."""

OF_PODS: Final = ("env", "configMap", "secret", "podTemplatePatch")
"""Keys of a service, and the first three of its canary, that only its pods and their Secrets see."""
