"""Builds HTML and SVG of elements, so that whatever text is in it stays text. No I/O."""

import re
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias
from xml.etree import ElementTree as ET

Element: TypeAlias = ET.Element
Child: TypeAlias = "Element | str | Iterable[Child] | None"

_NO_TEXT: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""What HTML has no place for: control characters, and halves of characters."""


def element(tag: str, /, *children: Child, **attributes: str | float | None) -> Element:
    """Return an element.

    Args:
        tag: its name.
        children: elements, texts, or iterables of them; None is left out.
        attributes: by name, with `_` for `-` and perhaps one at the end; None is left out.
    """
    made = ET.Element(tag, {_name(name): _text(value) for name, value in attributes.items() if value is not None})
    for child in _flat(children):
        if isinstance(child, ET.Element):
            made.append(child)
        elif len(made):
            made[-1].tail = (made[-1].tail or "") + _text(child)
        else:
            made.text = (made.text or "") + _text(child)
    return made


def document(root: Element) -> str:
    """Return an HTML document."""
    return "<!DOCTYPE html>\n" + ET.tostring(root, encoding="unicode", method="html") + "\n"


def short(value: float) -> str:
    """Return a coordinate with one decimal at most."""
    return f"{value:.1f}".removesuffix(".0")


def _flat(children: Child) -> Iterator[Element | str]:
    if children is None:
        return
    # An element is iterable too: over its children.
    if isinstance(children, str | ET.Element):
        yield children
        return
    for child in children:
        yield from _flat(child)


def _name(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def _text(value: str | float) -> str:
    return _NO_TEXT.sub("\ufffd", value) if isinstance(value, str) else short(value)
