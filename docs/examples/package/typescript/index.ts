import * as pulumi from "@pulumi/pulumi";
import * as canary from "@pulumi/canary";

const config = new pulumi.Config();
const checkout = new canary.CanaryService("checkout", {
    namespace: "shop",
    host: "shop.example",
    path: "/checkout",
    port: 8080,
    image: "registry.example/checkout:1.4.2",
    env: { DATABASE: config.requireSecret("database") },
    canary: { image: "registry.example/checkout:1.5.0", weight: config.getNumber("weight") ?? 20 },
});

export const url = checkout.url;
