"""Every rule of the pack, in the order of the documentation."""

from typing import Final

from canary_policies import availability, images, labels, pods, routes, secrets, selectors, weights
from canary_policies.rule import Rule

RULES: Final[tuple[Rule, ...]] = (
    *labels.RULES,
    *selectors.RULES,
    *weights.RULES,
    *routes.RULES,
    *images.RULES,
    *pods.RULES,
    *availability.RULES,
    *secrets.RULES,
)
