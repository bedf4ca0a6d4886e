"""The plugin of the Pulumi package `canary`: what `pulumi package add` runs."""

from canary_service.components.provider import serve

serve()
