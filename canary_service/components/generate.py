"""Writes what Pulumi reads of the components: arguments.py, their inputs as types; schema.json, the package.

Run in the checkout as `python -m canary_service.components.generate`. The types come of the models of the configuration
(config/settings.py), so that names, descriptions and defaults are said once. Pulumi reads no pydantic models, literals
or unions from annotations, so every field has the type that it has in all languages; its value is checked as that of a
configuration is. It reads descriptions from the text of a class alone, so none has members by inheritance.
"""

import json
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pulumi.provider.experimental.component import ComponentProvider
from pydantic.fields import FieldInfo

from canary_service.components.fields import CONNECTION, OF_STACK, WITHOUT_RUN
from canary_service.config.settings import Model, RolloutSettings, ServiceSettings, Settings

_CHECKOUT: Final = Path(__file__).parents[2]

ARGUMENTS: Final = Path(__file__).with_name("arguments.py")
SCHEMA: Final = Path(__file__).with_name("schema.json")

_HEAD: Final = '''"""The inputs of the components, as Pulumi reads them. Written by components/generate.py."""

from typing import Any, NotRequired, TypedDict

from pulumi import Input
'''

_WIDTH: Final = 116

_CONNECTION: Final = {
    "kubeconfig": "A kubeconfig, as its content or as the path of a file. Default: that of the stack's configuration "
    "(kubernetes:kubeconfig), else of the environment.",
    "context": "The context in the kubeconfig. Default: that of the stack's configuration (kubernetes:context), else "
    "the current one.",
}

_SERVICE_NAME: Final = (
    "What the service and its objects are called: a lower-case letter, then letters, digits and '-'. Default: the name "
    "of the resource."
)


def arguments() -> str:
    """Return the text of arguments.py."""
    stack = _fields(Settings)
    service = {key: field for key, field in stack.items() if key in OF_STACK} | _fields(ServiceSettings)
    rollout = _fields(RolloutSettings)
    parts = [_HEAD, *map(_class, _models(Settings))]
    parts.append(
        _typed(
            "CanaryServiceInputs",
            "What a CanaryService is made of.",
            [
                *_members(service),
                ("serviceName", "NotRequired[Input[str]]", _SERVICE_NAME),
                ("maxStep", *_member(rollout["maxStep"])),
                *_connection(),
            ],
        )
    )
    parts.append(_typed("CanaryStackInputs", "What a CanaryStack is made of.", [*_members(stack), *_connection()]))
    return "\n\n".join(parts)


def _fields(model: type[Model]) -> dict[str, FieldInfo]:
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    return {key: field for key, field in fields.items() if key in WITHOUT_RUN.get(model, fields)}


def _models(model: type[Model]) -> list[type[Model]]:
    """Return the models inside a model, each after those that it has itself."""
    found: dict[type[Model], None] = {}
    for field in _fields(model).values():
        for inner in _inside(field.annotation):
            found |= dict.fromkeys((*_models(inner), inner))
    return list(found)


def _inside(annotation: object) -> Iterator[type[Model]]:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        yield annotation
    for part in get_args(annotation):
        yield from _inside(part)


def _name(model: type[Model]) -> str:
    return model.__name__.removesuffix("Settings")


def _class(model: type[Model]) -> str:
    return _typed(_name(model), " ".join((model.__doc__ or "").split()), _members(_fields(model)))


def _members(fields: dict[str, FieldInfo]) -> list[tuple[str, str, str]]:
    return [(key, *_member(field)) for key, field in fields.items()]


def _member(field: FieldInfo) -> tuple[str, str]:
    text = f"Input[{_type(field.annotation)}]"
    described = (field.description or "").rstrip(".")
    described = described[:1].upper() + described[1:] + "."
    default = field.get_default()
    if not field.is_required() and isinstance(default, str | int | float):
        described += f" Default: {json.dumps(default) if isinstance(default, bool) else default}."
    return (text if field.is_required() else f"NotRequired[{text}]"), described


def _connection() -> Iterator[tuple[str, str, str]]:
    return ((key, "NotRequired[Input[str]]", _CONNECTION[key]) for key in CONNECTION)


def _type(annotation: Any) -> str:  # noqa: ANN401 - an annotation
    """Return the type that all languages have for what a field takes."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(parts[0])
    if origin in (Union, UnionType):
        rest = [part for part in parts if part is not NoneType]
        return _type(rest[0]) if len(rest) == 1 else "str"  # a number or a percent, which digits are, too
    if origin is dict:
        return f"dict[str, {'Any' if parts[1] is Any else f'Input[{_type(parts[1])}]'}]"
    if origin is tuple:
        return f"list[Input[{_type(parts[0])}]]"
    model = isinstance(annotation, type) and issubclass(annotation, Model)
    return "str" if origin is Literal else _name(annotation) if model else str(annotation.__name__)


def _typed(name: str, described: str, members: list[tuple[str, str, str]]) -> str:
    lines = [f"class {name}(TypedDict):", *_docstring(described)]
    for key, kind, text in members:
        lines += ["", f"    {key}: {kind}", *_docstring(text)]
    return "\n".join(lines) + "\n"


def _docstring(text: str) -> list[str]:
    text = text.replace("\\", "\\\\")
    if len(text) <= _WIDTH - 6:
        return [f'    """{text}"""']
    return textwrap.indent("\n".join([*textwrap.wrap(f'"""{text}', _WIDTH), '"""']), "    ").splitlines()


def schema() -> str:
    """Return the text of schema.json, made of the types as they are in arguments.py."""
    from canary_service.components.provider import COMPONENTS, NAME  # noqa: PLC0415 - imports what this writes

    project = tomllib.loads((_CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = json.loads(ComponentProvider(COMPONENTS, NAME, version=project["version"]).schema or "")
    return json.dumps(_on_one_line(found), indent=2, sort_keys=True) + "\n"


def _on_one_line(schema: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a schema whose descriptions are without the lines and indents of docstrings."""
    if isinstance(schema, list):
        return [_on_one_line(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: " ".join(value.split()) if key == "description" and isinstance(value, str) else _on_one_line(value)
        for key, value in schema.items()
    }


if __name__ == "__main__":
    ARGUMENTS.write_text(arguments(), encoding="utf-8")
    SCHEMA.write_text(schema(), encoding="utf-8")
