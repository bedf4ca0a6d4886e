"""The configuration of a stack as its file has it: read, and changed by the engine."""

import json
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from canary_service.config.loader import Location, load
from canary_service.config.settings import Settings
from canary_service.rollout.engine import EngineError, run
from canary_service.rollout.preview import decrypted, selected_stack
from canary_service.rollout.release import Changes, Copy, path_of

# `pulumi config set --path` turns what Go's strconv.Atoi reads into a number, which for these would be another text.
_MISREAD: Final = re.compile(r"(?!(0|-?[1-9][0-9]*)$)[+-]?[0-9]+")

# Stands for an encrypted value where that is not needed: every kind of scalar can be read from it.
_ENCRYPTED: Final = "1"


# What no other program is likely to call its own. This project's file has defaults for some of them.
_OWN_KEYS: Final = {field.alias or name for name, field in Settings.model_fields.items()} - {"namespace", "host"}

# How the engine says that a stack's file cannot be read, without its name.
_UNREADABLE: Final = re.compile(r"(getting stack configuration: )?(invalid YAML file|yaml: )")


@dataclass(frozen=True, slots=True)
class Configuration:
    """A stack's configuration in plain text, each key with its namespace, and where in it something is encrypted."""

    values: Mapping[str, str]
    encrypted: Collection[Location]

    def settings(self, project: str) -> Settings:
        """Return what the values of a project mean.

        Raises:
            ConfigError: they cannot be used; no value that is encrypted is shown.
            EngineError: the project's program does not take its services from there.
        """
        own = f"{project}:"
        values = {key.removeprefix(own): value for key, value in self.values.items() if key.startswith(own)}
        if not values.keys() & _OWN_KEYS:
            raise EngineError(
                "this stack's configuration has no services: canary is for programs that take them from there; "
                "with another, the program itself says the weights (docs/package.md)",
                usage=True,
            )
        return load(values, [(str(key).removeprefix(own), *rest) for key, *rest in self.encrypted])


def project_of(folder: Path) -> dict[str, Any]:
    """Return what the Pulumi.yaml of a folder says.

    Raises:
        EngineError: it cannot be read, or names no project.
    """
    file = folder / "Pulumi.yaml"
    try:
        project = _yaml(file)
    except OSError as error:
        raise EngineError(f"{file.name} cannot be read: {error.strerror}", usage=True) from error
    if not isinstance(project.get("name"), str) or not project["name"]:
        raise EngineError(f"{file.name} names no project: it needs a line like name: my-project", usage=True)
    return project


def stack_file(folder: Path, name: str) -> Path:
    """Return the file of a stack, which may be named ORGANIZATION/STACK.

    Raises:
        EngineError: the project's file cannot be used.
    """
    return _file_of(folder, project_of(folder), name)


def configuration(folder: Path, name: str) -> Configuration:
    """Return a stack's configuration.

    Raises:
        EngineError: there is no such stack, or its configuration cannot be read.
    """
    file = stack_file(folder, name)
    written = _config_of(file) if file.exists() else {}
    try:
        values, secret = decrypted(folder, ["--stack", name])
    except EngineError as error:
        raise named(error, folder, name) from error
    encrypted: list[Location] = []
    for key in secret:
        # One that the file does not have is a default of the project.
        encrypted += tuple(_encrypted(written.get(key), (key,))) or ((key,),)
    return Configuration(values, encrypted)


def named(error: EngineError, folder: Path, name: str | None) -> EngineError:
    """Return an error of the engine with the name of the stack's file, if that is what the engine could not read.

    The stack is the selected one when None.
    """
    if not _UNREADABLE.match(str(error)):
        return error
    return EngineError(f"{stack_file(folder, name or selected_stack(folder)).name}: {error}", usage=True)


def stored(folder: Path, name: str) -> dict[str, str]:
    """Return a stack's configuration as its file has it, without the engine; encrypted values inside maps are 1.

    Raises:
        OSError: there is no such file.
        LookupError: a value is encrypted as a whole.
        EngineError: a file is not what it should be.
    """
    project = project_of(folder)
    defaults = {
        f"{project['name']}:{key}": declared["default"]
        for key, declared in _map(project.get("config")).items()
        if isinstance(declared, dict) and "default" in declared
    }
    config = defaults | _config_of(_file_of(folder, project, name))
    if hidden := [key for key, value in config.items() if _is_encrypted(value)]:
        raise LookupError(f"encrypted: {', '.join(hidden)}")
    return {
        key: json.dumps(_legible(value)) if isinstance(value, dict | list) else _text(value)
        for key, value in config.items()
    }


def edited(folder: Path, name: str, content: bytes, changes: Changes) -> bytes:
    """Return the content of a stack's file after changes by the engine; what is encrypted stays so.

    Raises:
        EngineError: the CLI refuses.
        OSError: there is no place for a draft.
    """
    with tempfile.TemporaryDirectory(prefix="canary-set-") as temporary:
        project = project_of(folder)
        draft = Path(temporary) / _file_of(folder, project, name).name
        draft.write_bytes(content)
        _Draft(folder, f"{project['name']}:", name, draft).write(changes)
        return draft.read_bytes()


@dataclass(frozen=True, slots=True)
class _Draft:
    """A copy of a stack's file, which the CLI changes in place of the file; keys of the project begin with `own`."""

    folder: Path
    own: str
    name: str
    file: Path

    def write(self, changes: Changes) -> None:
        changed = {key: change for key, change in changes.items() if change is not None}
        removed = [key for key, change in changes.items() if change is None]
        present = self._own(_config_of(self.file))
        if _is_encrypted(present.get("services")):
            raise EngineError(
                "services is encrypted as a whole, and a path into it would replace it: encrypt values in it instead",
                usage=True,
            )
        copied = any(isinstance(change, Copy) for change in changed.values())
        known = configuration(self.folder, self.name).values if copied else {}
        pairs: list[str] = []
        for key, change in changed.items():
            value = _text(_at(path_of(change.key), self._plain(known))) if isinstance(change, Copy) else change
            source = change.key if isinstance(change, Copy) else key
            secret = _is_encrypted(_at(path_of(source), present))
            if secret or _MISREAD.fullmatch(value):
                kind = ["--secret"] if secret else ["--type", "string"]
                self._config("set", "--path", "--raw", *kind, key, text=value)
            else:
                pairs += ["--plaintext", f"{key}={value}"]
        if pairs:
            self._config("set-all", "--path", *pairs)
        if removed:
            self._config("rm-all", "--path", *removed)

    def _own(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return {key.removeprefix(self.own): value for key, value in config.items() if key.startswith(self.own)}

    def _plain(self, config: Mapping[str, str]) -> dict[str, Any]:
        own = self._own(config)
        return own | {"services": json.loads(own["services"])}

    def _config(self, *arguments: str, text: str | None = None) -> None:
        ended = run(
            self.folder,
            ["config", *arguments, "--stack", self.name, "--config-file", str(self.file)],
            text=text,
        )
        if ended.code:
            raise EngineError(ended.message, usage=ended.usage)


def _at(path: Sequence[str], content: Any) -> Any:  # noqa: ANN401 - a value of any type that YAML has
    for part in path:
        content = content.get(part) if isinstance(content, dict) else None
    return content


def _yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_bytes()) or {}
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise EngineError(f"{file.name}{line} is not valid YAML: {error.problem}", usage=True) from error
    except yaml.YAMLError as error:
        raise EngineError(f"{file.name} is not valid YAML: {error}", usage=True) from error
    if not isinstance(content, dict):
        raise EngineError(f"{file.name} is to hold keys with values, not {type(content).__name__}", usage=True)
    return content


def _config_of(file: Path) -> dict[str, Any]:
    config = _yaml(file).get("config") or {}
    if not isinstance(config, dict):
        raise EngineError(f"config in {file.name} is to hold keys with values, not {config}", usage=True)
    return config


def _map(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _file_of(folder: Path, project: Mapping[str, Any], stack: str) -> Path:
    """Return the file of a stack, which may be named ORGANIZATION/STACK."""
    return (folder / (project.get("stackConfigDir") or "") / f"Pulumi.{stack.rpartition('/')[2]}.yaml").resolve()


def _legible(value: Any) -> Any:  # noqa: ANN401 - a value of any type that YAML has
    if isinstance(value, dict):
        return _ENCRYPTED if _is_encrypted(value) else {key: _legible(each) for key, each in value.items()}
    return [_legible(each) for each in value] if isinstance(value, list) else value


def _encrypted(value: object, path: Location) -> Iterator[Location]:
    if _is_encrypted(value):
        yield path
    elif isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for key, each in parts:
            yield from _encrypted(each, (*path, key))


def _is_encrypted(stored: object) -> bool:
    return isinstance(stored, dict) and stored.keys() == {"secure"}


def _text(value: object) -> str:
    """Return a scalar as configuration holds it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
