"""What the commands know of the project and stack that they are run for."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from canary_service.cli.errors import RefusedError
from canary_service.config.loader import ConfigError, load
from canary_service.config.settings import Settings
from canary_service.rollout.configuration import configuration, project_of, stored
from canary_service.rollout.preview import selected_stack


@dataclass(frozen=True, slots=True)
class Project:
    """A stack of a project.

    `provider` is the Kubernetes provider's configuration, which leads to the cluster.
    """

    folder: Path
    name: str
    stack: str
    settings: Settings
    provider: Mapping[str, str]

    @property
    def full_name(self) -> str:
        """PROJECT/STACK, as objects in the cluster say whose they are."""
        return f"{self.name}/{self.stack}"


def project_folder() -> Path:
    """Return the folder of the project that this runs in, as `pulumi` finds it.

    Raises:
        RefusedError: there is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "Pulumi.yaml").is_file():
            return folder
    raise RefusedError(f"there is no Pulumi.yaml in {here} or above")


def project_name(folder: Path) -> str:
    """Return the name of the project in a folder, which is also the namespace of its configuration.

    Raises:
        rollout.preview.EngineError: Pulumi.yaml cannot be used.
    """
    return str(project_of(folder)["name"])


def opened(stack: str | None, folder: Path | None = None) -> Project:
    """Read the configuration of a stack, the selected one when None, of the project here or in a folder.

    Raises:
        RefusedError: there is no project.
        config.loader.ConfigError: the configuration cannot be used.
        rollout.preview.EngineError: there is no such stack, or it cannot be read.
    """
    folder = folder or project_folder()
    name = project_name(folder)
    stack = stack or selected_stack(folder)
    config = configuration(folder, stack)
    return Project(folder, name, stack, config.settings(name), under("kubernetes", config.values))


def opened_without_engine(stack: str | None, folder: Path | None = None) -> Project:
    """Read the configuration of a stack from its file, where nothing of it has to be decrypted, else by the engine.

    For what has to be possible while the engine is not, and what must not wait for it: values that are encrypted there
    are other ones here. Where to find cluster and routes is hardly ever encrypted.

    Raises:
        RefusedError: there is no project.
        config.loader.ConfigError: the configuration cannot be used.
        rollout.preview.EngineError: there is no such stack, or it cannot be read.
    """
    folder = folder or project_folder()
    name = project_name(folder)
    stack = stack or os.environ.get("PULUMI_STACK") or selected_stack(folder)
    try:
        config = stored(folder, stack)
        return Project(folder, name, stack, load(under(name, config)), under("kubernetes", config))
    except (OSError, LookupError, ConfigError):
        return opened(stack, folder)


def under(namespace: str, config: Mapping[str, str]) -> dict[str, str]:
    """Return the values of one namespace, by key without it."""
    prefix = f"{namespace}:"
    return {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}
