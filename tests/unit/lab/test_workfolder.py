from __future__ import annotations

from pathlib import Path

import pytest

from bladeroot.errors import UsageError
from bladeroot.lab.workfolder import make_work_folder, occupied_work_folder, wait_until_free

MARKER = ".bladeroot-test"


def test_a_folder_of_somebody_elses_is_not_emptied(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis.tex").write_text("four years")
    with pytest.raises(UsageError, match="nothing of its kind made it"):
        make_work_folder(theirs, MARKER)
    with pytest.raises(UsageError):
        make_work_folder(theirs / "thesis.tex", MARKER)
    assert (theirs / "thesis.tex").read_text() == "four years"


def test_a_new_or_empty_folder_is_taken_and_its_own_is_emptied(tmp_path: Path) -> None:
    work = tmp_path / "empty"
    work.mkdir()
    for folder in (work, tmp_path / "new/deep"):
        make_work_folder(folder, MARKER)
        (folder / "left over").touch()
        make_work_folder(folder, MARKER)
        assert not (folder / "left over").exists()


def test_a_folder_that_a_lab_works_in_is_left_alone(tmp_path: Path) -> None:
    with occupied_work_folder(tmp_path / "work", MARKER) as work:
        (work / "disk").touch()
        with (
            pytest.raises(UsageError, match="a lab is running"),
            occupied_work_folder(tmp_path / "work", MARKER),
        ):
            pass
        assert (work / "disk").exists()
        assert not wait_until_free(work, MARKER, 0.3)
    assert wait_until_free(work, MARKER, 0.3)


def test_what_a_killed_lab_left_is_removed_by_the_next(tmp_path: Path) -> None:
    with occupied_work_folder(tmp_path / "work", MARKER) as work:
        (work / "blades").mkdir()
        (work / "blades" / "disk").touch()
        (work / "key").touch()
    with occupied_work_folder(tmp_path / "work", MARKER) as work:
        assert [path.name for path in work.iterdir()] == [MARKER]
