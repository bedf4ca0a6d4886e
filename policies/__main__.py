"""The policy pack, which the engine runs as a folder."""

from canary_policies.analyzer import serve

serve()
