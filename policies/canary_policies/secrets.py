"""Secrets that stand in plain text where everybody who may read a Deployment reads them."""

import base64
import binascii
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from canary_policies.objects import WORKLOADS, Object, containers, entries, get, items, mapping, text
from canary_policies.rule import Config, ResourceRule

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

# Also the end of a word: PGPASSWORD, authtoken.
_SECRET_WORDS: Final = (
    *(word + plural for word in ("credential", "passphrase", "password", "secret", "token") for plural in ("", "s")),
    *(f"{word}key" for word in ("access", "api", "auth", "encryption", "hmac", "jwt", "private", "secret", "signing")),
    "passwd",
)
_SECRET_SHORT_WORDS: Final = frozenset({"cred", "creds", "pw", "pwd"})
_NO_PASS: Final = frozenset({"bypass", "compass", "encompass", "overpass", "underpass"})
# What may follow a secret's name, and says only which of several it is.
_QUALIFIERS: Final = frozenset(
    {
        "admin",
        "app",
        "current",
        "database",
        "db",
        "default",
        "dev",
        "new",
        "old",
        "primary",
        "prod",
        "production",
        "root",
        "staging",
        "test",
        "txt",
        "value",
    }
)
_SECRET_PAIRS: Final = frozenset(
    {
        ("access", "key"),
        ("account", "key"),
        ("api", "key"),
        ("auth", "key"),
        ("encryption", "key"),
        ("hmac", "key"),
        ("jwt", "key"),
        ("master", "key"),
        ("private", "key"),
        ("secret", "key"),
        ("shared", "key"),
        ("signing", "key"),
        ("key", "base"),
    }
)
# SECRET and the like that name an object of the cluster.
_REFERRING: Final = frozenset({"aws", "external", "pull", "tls", "vault"})
# Names whose values are long and random, and known to everybody.
_PUBLIC: Final = frozenset(
    {
        "build",
        "ca",
        "cert",
        "certificate",
        "certs",
        "checksum",
        "commit",
        "digest",
        "etag",
        "fingerprint",
        "hash",
        "id",
        "ids",
        "integrity",
        "public",
        "release",
        "rev",
        "revision",
        "sha",
        "sha1",
        "sha256",
        "sha512",
        "thumbprint",
        "traceparent",
        "uuid",
        "version",
    }
)

_NO_REFERENCE: Final = r"(?!\$[({]|(?-i:\$[A-Z_])|<|\*{2,}|%|\{\{)"
_IN_URL: Final = re.compile(rf"\b[a-z][a-z0-9+.-]{{0,30}}://[^\s/:@?#]*:{_NO_REFERENCE}[^\s/@]+@", re.IGNORECASE)
# user:password@tcp(host:port)/database, as Go's driver of MySQL has it.
_IN_DSN: Final = re.compile(
    rf"(?<![^\s\"'=])[^\s:/@\"'=]{{1,64}}:{_NO_REFERENCE}[^\s@]{{1,128}}@(?:tcp|unix)6?\(", re.IGNORECASE
)
_IN_HEADER: Final = re.compile(r"\b(?:Bearer|Basic)\s{1,4}(?=[A-Za-z._~+/-]{0,200}[0-9=])[\w.~+/-]{8,}", re.IGNORECASE)

_FORMATS: Final = {
    "a private key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----|AGE-SECRET-KEY-1[0-9A-Z]{20,}"),
    "an AWS access key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a GitHub token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,})"),
    "a GitLab token": re.compile(r"\bglpat-[\w-]{20,}"),
    "a Google API key": re.compile(r"\bAIza[\w-]{35}\b"),
    "a Slack token": re.compile(r"\bxox[abeoprs]-[\w-]{10,}|hooks\.slack\.com/services/T\w+/B\w+/\w{20,}"),
    "a Stripe key": re.compile(r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}"),
    "a service's key": re.compile(
        r"(?<![\w-])(?:sk-[\w-]{20,}|SG\.[\w-]{16,}\.[\w-]{16,}|hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{30,}|hvs\.[\w-]{20,}"
        r"|dop_v1_[0-9a-f]{40,}|pypi-[\w-]{40,})"
    ),
    "a JSON web token": re.compile(r"(?<![\w-])eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}"),
    "a URL with a password": _IN_URL,
    "a data source with a password": _IN_DSN,
    "the credentials of a request": _IN_HEADER,
}

# What sets a name inside of a value: parameters, arguments, lines of .env, properties, YAML and JSON.
_ASSIGNED: Final = re.compile(
    r"""(?<![\w.$-])[-"']{0,2}([A-Za-z_][\w.-]{0,63})["']?"""
    r"""(?:[ \t]{0,3}=[ \t]{0,3}|:[ \t]{1,3}|(?<=["']):)"""
    r"""(?:"([^"\n]{4,200})"|'([^'\n]{4,200})'|([^\s"'&;,]{4,200}))"""
)
_PARAMETERS: Final = frozenset({"accountkey", "clientsecret", "sharedaccesskey", "sig"})
# In a file, what a program computes or a schema says is no value.
_CODE: Final = re.compile(r"[$<{\[(|>&*!%`].*|[\w.]+[(\[{].*|str|string|text|bytes|any", re.IGNORECASE | re.DOTALL)

# A value with a name like a secret's, that says where the secret is, or says nothing.
_HARMLESS: Final = re.compile(
    r"""
    | true | false | yes | no | on | off | none | null | disabled | enabled | required | optional
    | \d{1,5} | \d+(\.\d+)?(ns|us|ms|s|m|h|d)
    | x(-[a-z]+)+
    | (?-i:\$[A-Z_][A-Z0-9_]*) | \$[({].*[)}] | \{\{.*\}\} | <.*> | \*+ | x{3,} | change-?me | todo | redacted
    | /[^\s]* | \./[^\s]* | [a-z]:\\.* | file:.*
    | (?-i:[a-z][a-z0-9_.-]*(/[a-z][a-z0-9_.-]*){2,}) | alias/.*
    | https?://[^\s@]+
    | (vault | secret | secrets | ref\+\w+ | op | aws-?sm | gcp-?sm | az-?kv | ssm | sm | env | k8s | keyvault) :.*
    | arn:aws[\w-]*:(secretsmanager | ssm):.*
    | projects/[^/]+/secrets/.*
    """,
    re.IGNORECASE | re.VERBOSE,
)

_TOKEN: Final = re.compile(r"[A-Za-z0-9+/_-]{20,}={0,2}")
_PUBLISHED: Final = re.compile(r"(sha\d+[:-]|pk_(live|test)_).*")
_LOWER_AND_DIGITS: Final = 24
_BASE64: Final = 16
# Of neighbouring characters, the share that are of different kinds (upper, lower, digit): 0.62 on average in random
# text of all three, 0.40 to 0.47 in that of lower case and digits, under 0.25 in words and identifiers.
_CHANGES_OF_THREE: Final = 0.4
_CHANGES_OF_TWO: Final = 0.3
_KINDS: Final = frozenset({"digit", "lower", "upper"})


def why_secret(name: str, value: str) -> str | None:
    """Return why a variable holds a secret, as far as name and value tell; None when neither does.

    The reason never shows the value.
    """
    stripped = value.strip()
    for what, pattern in _FORMATS.items():
        if pattern.search(stripped):
            return f"it looks like {what}"
    if _sets_secret(stripped):
        return "it has a password among its parameters or lines"
    words = _words(name)
    if _named_secret(words) and not _HARMLESS.fullmatch(stripped):
        return "its name is a secret's"
    if not _PUBLIC.intersection(words) and _random(stripped):
        return "it looks random, as keys and tokens do"
    return None


def _sets_secret(value: str) -> bool:
    for found in _ASSIGNED.finditer(value):
        name, given = found[1], next(part for part in found.groups()[1:] if part is not None)
        named = name.lower().replace("_", "") in _PARAMETERS or _named_secret(_words(name))
        if named and not _HARMLESS.fullmatch(given) and not _CODE.fullmatch(given):
            return True
    return False


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]


def _named_secret(words: list[str]) -> bool:
    while words and (words[-1].isdigit() or words[-1] in _QUALIFIERS):
        words = words[:-1]
    last, before = (words or [""])[-1], (words[-2:-1] or [""])[0]
    if last.endswith(_SECRET_WORDS):
        return before not in _REFERRING
    if last.endswith("pass"):
        return last not in _NO_PASS
    return last in _SECRET_SHORT_WORDS or (before, last) in _SECRET_PAIRS


def _random(value: str) -> bool:
    if not _TOKEN.fullmatch(value) or _PUBLISHED.fullmatch(value) or _decodes_to_text(value):
        return False
    pieces = re.findall(r"[A-Za-z0-9]+", value)
    if {_kind(character) for piece in pieces for character in piece} == _KINDS and _changes(
        pieces
    ) >= _CHANGES_OF_THREE:
        return True
    # Lower case and digits in pieces are names of pods, hosts and UUIDs; a key is one piece.
    longest = max(pieces, key=len, default="")
    return len(longest) >= _LOWER_AND_DIGITS and _changes([longest]) >= _CHANGES_OF_TWO


def _kind(character: str) -> str:
    return "digit" if character.isdigit() else "upper" if character.isupper() else "lower"


def _changes(pieces: list[str]) -> float:
    """Return the share of neighbours, inside of pieces, that are of different kinds."""
    changes = [_kind(one) != _kind(other) for piece in pieces for one, other in pairwise(piece)]
    return sum(changes) / max(len(changes), 1)


def _decodes_to_text(value: str) -> bool:
    """Tell whether a value is text in base64, which is written so to keep its quotes and line ends, not to hide it."""
    if len(value) < _BASE64:
        return False
    try:
        decoded = base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True)
        plain = decoded.decode("ascii")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return False
    return all(character.isprintable() or character.isspace() for character in plain)


def _plain(found: Object, config: Config) -> Iterator[str]:
    for where, name, value in _variables(found):
        if any(re.fullmatch(pattern, name) for pattern in config["allowed"]):
            continue
        if reason := why_secret(name, value):
            yield f"{where} has a secret in plain text: {reason}"


def _variables(found: Object) -> Iterator[tuple[str, str, str]]:
    for container in containers(found):
        for variable in items(container.body, "env"):
            # Numbers are refused by the API server, and are known all the same.
            value = get(variable, "value")
            if isinstance(value, str | int | float):
                yield f"{container.title}, variable {text(variable, 'name')}", text(variable, "name"), str(value)
        for name in ("command", "args"):
            words = [word for word in entries(container.body, name) if isinstance(word, str)]
            yield f"{container.title}, {name}", name, "\n".join(words)
    if found.kind == "ConfigMap":
        for name, value in mapping(found.body, "data").items():
            if isinstance(value, str):
                yield f"key {name}", name, value


RULES: Final = (
    ResourceRule(
        name="no-plain-secrets",
        why="Whoever may read a Deployment or a ConfigMap, or the state of the stack, has the secrets in it",
        fix="keep it in a Secret, read with valueFrom.secretKeyRef or envFrom; add a false alarm to `allowed`",
        kinds=WORKLOADS | {"ConfigMap"},
        options={
            "allowed": {
                "type": "array",
                "items": {"type": "string", "format": "regex"},
                "default": [],
                "description": "Regular expressions for names of variables, or args and command, that are no secrets",
            }
        },
        check=_plain,
    ),
)
