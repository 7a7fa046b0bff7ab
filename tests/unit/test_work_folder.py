"""A real guest's folder: gone with its maker, or with the next one where the maker was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from guest_model.linux.errors import GuestUnavailableError
from guest_model.linux.work_folder import work_folder

MAKER = """
import sys
from pathlib import Path
from guest_model.linux.work_folder import work_folder
with work_folder(Path(sys.argv[1])) as folder:
    (folder / "root").mkdir()
    (folder / "root/init").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""


def maker(parent: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process with a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", MAKER, str(parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_folder_goes_with_its_maker(tmp_path: Path) -> None:
    """Whatever is in it."""
    with work_folder(tmp_path) as folder:
        (folder / "root").mkdir()
        assert folder.parent == tmp_path
    assert not any(tmp_path.iterdir())


def test_the_folder_of_a_killed_process_is_removed_by_the_next_one(tmp_path: Path) -> None:
    """The one of a process that lives stays, and so does what only looks like one."""
    killed, stale = maker(tmp_path)
    living, kept = maker(tmp_path)
    with killed, living:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert (stale / "root/init").exists()
        others = [tmp_path / name for name in ("fpr-guest-a", "fpr-guest-1-x.d", "mine-1-a")]
        for other in others:
            other.mkdir()
        (tmp_path / "fpr-guest-7-file").touch()
        (tmp_path / "fpr-guest-8-link").symlink_to(others[2])
        with work_folder(tmp_path) as folder:
            left = {path.name for path in tmp_path.iterdir()}
            assert left == {
                folder.name,
                kept.name,
                *(other.name for other in others),
                "fpr-guest-7-file",
                "fpr-guest-8-link",
            }
        assert (kept / "root/init").exists()
        assert not stale.exists()
        living.communicate()
    assert living.returncode == 0
    assert not kept.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_without_a_place_in_memory_there_is_no_guest(tmp_path: Path) -> None:
    """The remedy is said."""
    tmp_path.chmod(0o500)
    with pytest.raises(GuestUnavailableError, match="tmpfs"), work_folder(tmp_path):
        pass
