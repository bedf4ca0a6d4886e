"""The Pulumi program: declares what the stack's configuration says."""

from canary_service.components.declaration import declare_from_config

declare_from_config()
