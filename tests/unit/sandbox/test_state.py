import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.errors import SandboxError
from sandbox.state import StateFolder


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path / "deep" / "state")


def claimed(folder: StateFolder) -> int:
    lock = folder.claim()
    assert lock is not None
    return lock


def test_a_claim_makes_the_folder_for_its_owner_alone(folder: StateFolder) -> None:
    lock = claimed(folder)
    assert folder.root.stat().st_mode & 0o777 == 0o700
    os.close(lock)


def test_a_folder_is_claimed_once_at_a_time(folder: StateFolder) -> None:
    lock = claimed(folder)
    assert folder.claim() is None
    os.close(lock)
    os.close(claimed(folder))


def test_what_a_killed_sandbox_left_is_cleared_by_the_next_claim(folder: StateFolder) -> None:
    os.close(claimed(folder))
    folder.logs.mkdir()
    (folder.logs / "etcd.log").write_text("old")
    folder.record.write_text("{}")
    lock = claimed(folder)
    assert list(folder.root.iterdir()) == [folder.lock]
    os.close(lock)


def test_a_folder_with_other_files_is_refused_and_left_alone(folder: StateFolder) -> None:
    folder.root.mkdir(parents=True)
    thesis = folder.root / "thesis.tex"
    thesis.write_text("years of work")
    with pytest.raises(SandboxError, match="holds files that are not a sandbox's; it was left as it is"):
        folder.claim()
    assert list(folder.root.iterdir()) == [thesis]


def test_a_folder_that_cannot_be_made_is_an_error_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SandboxError, match="Not a directory"):
        StateFolder(tmp_path / "file" / "state").claim()


def test_clearing_removes_the_folder(folder: StateFolder) -> None:
    lock = claimed(folder)
    folder.pulumi_home.mkdir()
    (folder.pulumi_home / "link").symlink_to("/nowhere")
    folder.clear()
    os.close(lock)
    assert not folder.root.exists()


def test_clearing_follows_no_link(folder: StateFolder, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    lock = claimed(folder)
    (folder.root / "link").symlink_to(precious)
    folder.clear()
    os.close(lock)
    assert (precious / "file").read_text() == "kept"


def test_the_holder_is_the_process_that_the_lock_names_while_it_is_held(folder: StateFolder) -> None:
    assert folder.holder() is None
    lock = claimed(folder)
    assert folder.holder() == 0
    os.write(lock, b"1234")
    assert folder.holder() == 1234
    os.close(lock)
    assert folder.holder() is None


def test_the_death_of_the_holder_frees_the_folder(folder: StateFolder) -> None:
    lock = claimed(folder)
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, pass_fds=[lock]
    ) as holder:
        os.close(lock)
        assert folder.claim() is None
        holder.kill()
    os.close(claimed(folder))
