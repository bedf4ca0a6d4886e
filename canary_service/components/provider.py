"""Serves the components to programs in other languages, as the plugin of a Pulumi package."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, Final

import pulumi
from pulumi.provider import ConstructResult, main
from pulumi.provider.experimental.analyzer import ComponentDefinition
from pulumi.provider.experimental.component import ComponentProvider
from pulumi.provider.server import ComponentInitError

from canary_service.components.identity import CLAIMS_OF_PLUGIN, Claims
from canary_service.components.outside import CanaryService, CanaryStack

NAME: Final = "canary"
"""The package's name, which its tokens begin with."""

COMPONENTS: Final[list[type[pulumi.ComponentResource]]] = [CanaryService, CanaryStack]
SCHEMA: Final = Path(__file__).with_name("schema.json")
"""What other languages see of them."""


class CanaryProvider(ComponentProvider):
    """Makes components of inputs as they come: they check them themselves, and tell what is wrong by input."""

    def __init__(self) -> None:
        schema = SCHEMA.read_text(encoding="utf-8")
        super().__init__(COMPONENTS, NAME, version=json.loads(schema)["version"])
        self._claims: Claims = {}
        self.schema = schema  # what is inherited has no descriptions when the modules are installed

    def map_inputs(self, inputs: pulumi.Inputs, component_def: ComponentDefinition) -> pulumi.Inputs:  # noqa: ARG002 - as inherited
        """Leave them as they are: the inherited mapping fails at numbers that are outputs."""
        return inputs

    def construct(
        self, name: str, resource_type: str, inputs: pulumi.Inputs, options: pulumi.ResourceOptions | None = None
    ) -> ConstructResult:
        """Make a component; what its constructor finds and what it finds later are told alike."""
        CLAIMS_OF_PLUGIN.set(self._claims)
        made = asyncio.ensure_future(self._made(name, resource_type, inputs, options))

        async def of(key: str) -> Any:  # noqa: ANN401 - an output of any type
            urn, state = await made
            return urn if key == "urn" else state[key]

        outputs = self._component_defs[resource_type.rpartition(":")[2]].outputs
        return ConstructResult(
            pulumi.Output.from_input(of("urn")), {key: pulumi.Output.from_input(of(key)) for key in outputs}
        )

    async def _made(
        self, name: str, resource_type: str, inputs: pulumi.Inputs, options: pulumi.ResourceOptions | None
    ) -> tuple[Any, dict[str, Any]]:
        try:
            result = super().construct(name, resource_type, inputs, options)
            for output in result.state.values():
                await pulumi.Output.from_input(output).is_known()
        except ComponentInitError as error:
            raise _legible(error.inner) from None
        except pulumi.RunError as error:
            raise _legible(error) from None
        return result.urn, dict(result.state)


def _legible(error: Exception) -> Exception:
    """Return an error as the engine shows it without a traceback.

    It names no property to the engine, which would show the value of that, secret or not.
    """
    return pulumi.InputPropertiesError(str(error), []) if isinstance(error, pulumi.RunError) else error


def serve() -> None:
    """Serve until the engine ends it."""
    main(CanaryProvider(), sys.argv[1:])
