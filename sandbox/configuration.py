"""What containers take from ConfigMaps and Secrets, looked up as a kubelet does."""

from base64 import b64decode
from collections.abc import Mapping, Sequence

import httpx2
from lightkube import AsyncClient
from lightkube.core.exceptions import ApiError
from lightkube.models.core_v1 import Container, EnvVar, Volume
from lightkube.resources.core_v1 import ConfigMap, Secret


class ConfigurationError(Exception):
    """What a container needs is not there, or cannot be asked for; a retry helps once it is there."""


class Configuration:
    """The ConfigMaps and Secrets of one namespace."""

    def __init__(self, client: AsyncClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    async def variables(self, container: Container) -> dict[str, str]:
        """Return a container's environment: `env` goes over `envFrom`, and what comes later over what came before.

        Fields of the pod and references to other variables are left out.

        Raises:
            ConfigurationError: a ConfigMap, a Secret or a key in one is missing and not optional.
        """
        variables: dict[str, str] = {}
        for source in container.envFrom or ():
            for kind, reference in ((ConfigMap, source.configMapRef), (Secret, source.secretRef)):
                if reference:
                    found = await self._data(kind, reference.name or "", optional=bool(reference.optional))
                    variables |= {(source.prefix or "") + key: value for key, value in found.items()}
        for variable in container.env or ():
            value = await self._value(variable)
            if value is not None:
                variables[variable.name] = value
        return variables

    async def look_for(self, volumes: Sequence[Volume]) -> None:
        """Return when the objects that volumes are made of are there.

        Raises:
            ConfigurationError: one is missing and not optional.
        """
        for volume in volumes:
            try:
                if volume.configMap:
                    await self._data(ConfigMap, volume.configMap.name or "", optional=bool(volume.configMap.optional))
                if volume.secret:
                    await self._data(Secret, volume.secret.secretName or "", optional=bool(volume.secret.optional))
            except ConfigurationError as error:
                raise ConfigurationError(f'MountVolume.SetUp failed for volume "{volume.name}" : {error}') from error

    async def _value(self, variable: EnvVar) -> str | None:
        if variable.valueFrom is None:
            return variable.value
        of_config_map, of_secret = variable.valueFrom.configMapKeyRef, variable.valueFrom.secretKeyRef
        for kind, reference in ((ConfigMap, of_config_map), (Secret, of_secret)):
            if reference:
                optional = bool(reference.optional)
                found = await self._data(kind, reference.name or "", optional=optional)
                if reference.key not in found and not optional:
                    where = f"{kind.__name__} {self._namespace}/{reference.name}"
                    raise ConfigurationError(f"couldn't find key {reference.key} in {where}")
                return found.get(reference.key)
        return None

    async def _data(self, kind: type[ConfigMap | Secret], name: str, *, optional: bool) -> Mapping[str, str]:
        try:
            found = await self._client.get(kind, name, namespace=self._namespace)
        except ApiError as error:
            if error.status.reason != "NotFound":
                raise ConfigurationError(str(error)) from error
            if optional:
                return {}
            raise ConfigurationError(f'{kind.__name__.lower()} "{name}" not found') from error
        except httpx2.HTTPError as error:
            raise ConfigurationError(f"the API server cannot be asked: {error!r}") from error
        data = found.data or {}
        return (
            {key: b64decode(value).decode(errors="replace") for key, value in data.items()} if kind is Secret else data
        )
