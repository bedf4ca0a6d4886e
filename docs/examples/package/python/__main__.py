"""A service with a canary beside other resources of the program, by `pip install canary-service`."""

import pulumi

from canary_service.components import CanaryService

config = pulumi.Config()
checkout = CanaryService(
    "checkout",
    {
        "namespace": config.get("namespace") or "shop",
        "host": "shop.example",
        "path": "/checkout",
        "port": 8080,
        "image": "registry.example/checkout:1.4.2",
        "env": {"DATABASE": config.require_secret("database")},
        "canary": {"image": "registry.example/checkout:1.5.0", "weight": config.require_int("weight")},
    },
)
pulumi.export("url", checkout.url)
pulumi.export("tracks", checkout.tracks)
