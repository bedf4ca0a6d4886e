"""What a rule is, and what it says when an object breaks it."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

from canary_policies.objects import Object

Config: TypeAlias = Mapping[str, Any]
"""Value of each option of a rule; the engine fills in the defaults and checks it against the schema."""


class Severity(StrEnum):
    """What a finding does, unless the configuration of the pack says otherwise; the engine's enforcement levels."""

    MANDATORY = "mandatory"
    ADVISORY = "advisory"
    DISABLED = "disabled"


class UnknownOptionError(ValueError):
    """The configuration of the pack has an option that its rule has not. A retry does not help."""


class UnusableOptionError(ValueError):
    """The configuration of the pack gives an option a value that its rule cannot use. A retry does not help."""


def not_a_pattern(pattern: str) -> str:
    """Return why a text is no regular expression; nothing when it is one."""
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return str(error)
    return ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One object that breaks a rule, and in what way."""

    object: Object
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(ABC):
    """What every rule has.

    `why` is one line, `fix` is what to do about any finding. `kinds` are the kinds of objects that it reads.
    `options` is its configuration: the JSON schema of each option, with a default. `objection` returns what is wrong
    with a configuration that fits the schema; nothing when it is right.
    """

    name: str
    why: str
    fix: str
    kinds: frozenset[str]
    severity: Severity = Severity.MANDATORY
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    objection: Callable[[Config], str] = lambda _: ""

    def configured(self, given: Config) -> Config:
        """Return the configuration with the defaults of what is not given.

        Raises:
            UnknownOptionError: the rule has no option of such a name; the engine overlooks that.
            UnusableOptionError: the rule objects, or a regular expression is none to Python (the engine knows Go's).
        """
        if unknown := sorted(given.keys() - self.options.keys()):
            choices = f"choose {', '.join(self.options)}" if self.options else "it has none"
            raise UnknownOptionError(f"{self.name} has no option {', '.join(unknown)}: {choices}")
        for option, value in given.items():
            self._check_patterns(option, self.options[option], value)
        config = {option: schema["default"] for option, schema in self.options.items()} | dict(given)
        if wrong := self.objection(config):
            raise UnusableOptionError(f"{self.name}: {wrong}")
        return config

    def _check_patterns(self, option: str, schema: Mapping[str, Any], value: object) -> None:
        if isinstance(value, list):
            for item in value:
                self._check_patterns(option, schema.get("items", {}), item)
        if isinstance(value, Mapping):
            for item in value.values():
                self._check_patterns(option, schema.get("additionalProperties") or {}, item)
        if schema.get("format") == "regex" and isinstance(value, str) and (wrong := not_a_pattern(value)):
            raise UnusableOptionError(f"{self.name}: {option}: {value!r} is no regular expression of Python: {wrong}")

    @abstractmethod
    def findings(self, objects: Sequence[Object], config: Config) -> Iterator[Finding]:
        """Return what is wrong with these objects: one finding for each that breaks the rule, with all reasons."""

    def message(self, finding: Finding) -> str:
        """Return a finding as one line that names object, reason and fix."""
        return f"{finding.object}: {finding.reason}. Fix: {self.fix}"


def _not_judged(rule: Rule, error: Exception) -> str:
    return f"{rule.name} could not be judged: {type(error).__name__}: {str(error)[:200]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceRule(Rule):
    """A rule that one object alone can break: it stops the object before it is made. `check` returns reasons."""

    check: Callable[[Object, Config], Iterable[str]]

    def findings(self, objects: Sequence[Object], config: Config) -> Iterator[Finding]:
        """Return what is wrong with these objects, each by itself."""
        for found in objects:
            if found.kind not in self.kinds:
                continue
            try:
                reasons = dict.fromkeys(self.check(found, config))
            except Exception as error:  # noqa: BLE001 - a fault of one rule must not end the preview, nor pass the object
                reasons = {_not_judged(self, error): None}
            if reasons:
                yield Finding(found, "; ".join(reasons))


@dataclass(frozen=True, slots=True, kw_only=True)
class StackRule(Rule):
    """A rule that takes several objects: it stops a preview, but in an update it speaks when they are made."""

    check: Callable[[Sequence[Object], Config], Iterable[Finding]]

    def findings(self, objects: Sequence[Object], config: Config) -> Iterator[Finding]:
        """Return what is wrong with these objects together."""
        reasons: dict[int, dict[str, None]] = {}
        judged = [found for found in objects if found.kind in self.kinds]
        try:
            for finding in self.check(judged, config):
                reasons.setdefault(id(finding.object), {})[finding.reason] = None
        except Exception as error:  # noqa: BLE001 - likewise
            # Which object it was is not known: the first stands for all.
            reasons.setdefault(id((judged or objects)[0]), {})[_not_judged(self, error)] = None
        for found in objects:
            if id(found) in reasons:
                yield Finding(found, "; ".join(reasons[id(found)]))
