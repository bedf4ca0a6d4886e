"""Each change of the stack's file becomes a commit that says what is in force, and holds nothing else."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from canary_service.rollout.commits import CommitError, Commits, require_committed
from canary_service.rollout.events import Finished, Promoted, RolledBack, StepStarted, WeightSet

STACK = "macromind/dev"
FILE = "Pulumi.dev.yaml"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "Somebody")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "somebody@example")
    git(tmp_path, "init", "--quiet")
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout  # noqa: S607 - from PATH


def messages(folder: Path) -> list[str]:
    return [text for text in git(folder, "log", "--reverse", "--format=%B%x00").split("\n\0\n") if text]


def weight(service: str, before: int, after: int) -> WeightSet:
    return WeightSet(at=0, stack=STACK, service=service, before=before, read_back=after, seconds=1, means="update")


def step(weight: int, *services: str) -> StepStarted:
    return StepStarted(at=0, stack=STACK, services=services, weight=weight)


def test_a_step_of_several_services_is_one_commit(folder: Path) -> None:
    commits = Commits(folder / FILE)
    (folder / FILE).write_text("canaryWeight: 5")
    for event in (step(5, "a", "b"), weight("a", 0, 5), weight("b", 0, 5)):
        commits(event)
    assert messages(folder) == ["a: canary at 5 %; b: canary at 5 %"]
    assert git(folder, "status", "--porcelain") == ""


def test_a_rollback_says_why(folder: Path) -> None:
    commits = Commits(folder / FILE)
    (folder / FILE).write_text("canaryWeight: 0")
    commits(RolledBack(at=0, stack=STACK, services=("a",), reason="12 % failed", seconds=0.1))
    commits(Finished(at=0, stack=STACK, outcome="rolled-back", exit_code=2, text="a rolled back to 0 %: 12 % failed"))
    assert messages(folder) == ["a: canary rolled back\n\na rolled back to 0 %: 12 % failed"]


def test_a_promotion_is_a_commit(folder: Path) -> None:
    commits = Commits(folder / FILE)
    (folder / FILE).write_text("image: next")
    commits(Promoted(at=0, stack=STACK, services=("a", "b")))
    assert messages(folder) == ["a and b: canary promoted"]


def test_what_is_left_at_the_end_is_committed_and_nothing_when_nothing_is(folder: Path) -> None:
    commits = Commits(folder / FILE)
    (folder / FILE).write_text("canaryWeight: 20")
    end = Finished(at=0, stack=STACK, outcome="failed", exit_code=4, text="the engine failed")
    commits(end)
    commits(end)
    assert messages(folder) == ["canary run: failed\n\nthe engine failed"]


def test_what_else_is_staged_stays_staged(folder: Path) -> None:
    (folder / "other").write_text("mine")
    git(folder, "add", "other")
    (folder / FILE).write_text("canaryWeight: 5")
    commits = Commits(folder / FILE)
    commits(step(5, "a"))
    commits(weight("a", 0, 5))
    assert git(folder, "status", "--porcelain") == "A  other\n"


def test_a_refusal_of_git_is_told(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("")
    with pytest.raises(CommitError, match=r"not committed: git rev-parse: .*not a git repository"):
        Commits(tmp_path / FILE)(Promoted(at=0, stack=STACK, services=("a",)))


def test_a_file_with_changes_of_somebody_else_is_refused(folder: Path) -> None:
    file, other = folder / FILE, folder / "other"
    for change in ("new", "changed", "staged"):
        file.write_text(change)
        if change == "staged":
            git(folder, "add", FILE)
        with pytest.raises(CommitError, match=r"has changes that are not committed.*commit them before, or leave out"):
            require_committed(file)
        git(folder, "add", FILE)
        git(folder, "commit", "--quiet", "--message", change)
    other.write_text("not committed")
    require_committed(file)


def test_a_file_that_git_ignores_or_does_not_know_is_refused(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (folder / FILE).touch()
    (folder / ".gitignore").write_text("*\n")
    with pytest.raises(CommitError):
        require_committed(folder / FILE)
    elsewhere = tmp_path_factory.mktemp("elsewhere") / FILE
    elsewhere.touch()
    with pytest.raises(CommitError, match="not a git repository"):
        require_committed(elsewhere)


def test_runs_of_many_stacks_commit_at_the_same_time(folder: Path) -> None:
    (folder / "nested").mkdir()
    files = [folder / place / f"Pulumi.{number}.yaml" for number in range(4) for place in (".", "nested")]

    def release(file: Path) -> None:
        commits = Commits(file)
        for weight_ in (5, 20, 50):
            file.write_text(f"canaryWeight: {weight_}")
            commits(step(weight_, "a"))
            commits(weight("a", 0, weight_))

    with ThreadPoolExecutor() as executor:
        list(executor.map(release, files))
    assert len(messages(folder)) == 3 * len(files)
    assert git(folder, "status", "--porcelain") == ""
