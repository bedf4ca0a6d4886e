"""The same by the SDK that `pulumi package add` writes."""

import pulumi
import pulumi_canary as canary

config = pulumi.Config()
checkout = canary.CanaryService(
    "checkout",
    namespace=config.get("namespace") or "shop",
    host="shop.example",
    path="/checkout",
    port=8080,
    image="registry.example/checkout:1.4.2",
    env={"DATABASE": config.require_secret("database")},
    canary={"image": "registry.example/checkout:1.5.0", "weight": config.require_int("weight")},
)
pulumi.export("url", checkout.url)
pulumi.export("tracks", checkout.tracks)
