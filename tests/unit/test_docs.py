"""The reference names every key there is, and the README's commands exist."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from canary_service.config.settings import Settings
from canary_service.rollout.events import EVENTS, AnyEvent
from canary_service.rollout.summary import RunSummary
from tests import conformance

ROOT = Path(__file__).parents[2]


def models(annotation: object) -> set[type[BaseModel]]:
    """Return every model that a type holds, and those that they hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}.union(*(models(field.annotation) for field in annotation.model_fields.values()))
    return {found for part in get_args(annotation) for found in models(part)}


@pytest.mark.parametrize("model", sorted(models(Settings), key=str))
def test_the_reference_names_every_configuration_key(model: type[BaseModel]) -> None:
    reference = (ROOT / "docs/reference.md").read_text()

    missing = [
        field.alias for field in model.model_fields.values() if not re.search(rf"`[^`\n]*\b{field.alias}\b", reference)
    ]

    assert missing == []


def test_the_journal_s_document_has_every_event_and_field() -> None:
    text = (ROOT / "docs/journal.md").read_text()

    for model in models(AnyEvent):
        fields = {field.alias or name for name, field in model.model_fields.items()}
        assert {name for name in fields if not re.search(rf"`{name}`", text)} == set(), model
    for kind in EVENTS.json_schema()["discriminator"]["mapping"]:
        assert re.search(rf"^### .*`{kind}`", text, re.MULTILINE), kind


@pytest.mark.parametrize("model", sorted(models(RunSummary), key=str))
def test_the_journal_s_document_has_every_field_of_a_run_in_numbers(model: type[BaseModel]) -> None:
    text = (ROOT / "docs/journal.md").read_text()

    assert {field.alias for field in model.model_fields.values() if f"`{field.alias}`" not in text} == set()


def test_every_make_target_of_the_documents_exists() -> None:
    documents = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    named = {
        target
        for path in documents
        for target in re.findall(r"(?:`|^\s*)make ([a-z-]+)", path.read_text(), re.MULTILINE)
    }
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert named <= targets
    assert {"demo", "test"} <= named


def test_documents_that_the_code_refers_to_are_there_and_finished() -> None:
    sources = [path for path in ROOT.rglob("*.py") if ".venv" not in path.parts]
    named = {name for path in sources for name in re.findall(r"docs/[a-z0-9/-]+\.md", path.read_text())}

    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        assert "PLACEHOLDER" not in path.read_text()


def test_links_between_documents_lead_somewhere() -> None:
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text()):
            assert (path.parent / link).exists(), f"{path.relative_to(ROOT)} links to {link}"


def test_the_table_of_routers_is_what_the_conformance_suite_has_found() -> None:
    assert conformance.in_document() == conformance.table(json.loads(conformance.STORED.read_text()))
