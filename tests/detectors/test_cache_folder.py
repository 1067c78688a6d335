"""detectors/cache_folder.py: nobody but us and root can put code where compiled code is taken from."""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import pytest

from detectors.cache_folder import find_folder, open_to_others

NAME: Final = "0123456789abcdef"
US, BOB = 10_001, 1_234
OURS, STAFF, FOREIGN, NAMELESS = 10_001, 50, 60, 2_000
USERS: Final = [
    SimpleNamespace(pw_name=name, pw_uid=uid, pw_gid=gid)
    for name, uid, gid in (("root", 0, 0), ("keywatch", US, OURS), ("bob", BOB, 100))
]
GROUPS: Final = {0: [], OURS: ["keywatch"], STAFF: ["bob", "keywatch"], FOREIGN: ["keywatch"], 100: ["keywatch"]}


@pytest.fixture
def as_keywatch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of groups of its own, of several people's, and of numbers that have no name."""
    monkeypatch.setattr(os, "geteuid", lambda: US)
    monkeypatch.setattr(os, "getegid", lambda: OURS)
    monkeypatch.setattr(os, "getgroups", lambda: [STAFF, NAMELESS, 100])
    monkeypatch.setattr(pwd, "getpwall", lambda: USERS)
    monkeypatch.setattr(grp, "getgrgid", lambda gid: SimpleNamespace(gr_mem=GROUPS[gid]))


@pytest.mark.usefixtures("as_keywatch")
@pytest.mark.parametrize(
    ("what", "uid", "gid", "mode", "is_open"),
    [
        ("compose's volume, as the image has that folder", US, OURS, 0o755, False),
        ("an emptyDir of a pod with fsGroup", 0, OURS, 0o2777, False),
        ("the same with a group that the image does not name", 0, NAMELESS, 0o2777, False),
        ("a disk of a pod with fsGroup", 0, OURS, 0o2775, False),
        ("below it, when the next pod starts", US, OURS, 0o2770, False),
        ("an emptyDir of a pod without fsGroup", 0, 0, 0o777, True),
        ("root's", 0, 0, 0o755, False),
        ("a user's whose group is his own", US, OURS, 0o775, False),
        ("another user's", BOB, OURS, 0o700, True),
        ("open to everybody", US, OURS, 0o777, True),
        ("open to everybody but the group", US, OURS, 0o757, True),
        ("open to everybody, of a user who set the bit", US, OURS, 0o2777, True),
        ("of a group that is another user's, too", US, STAFF, 0o775, True),
        ("root's, for the people of a group", 0, STAFF, 0o2775, True),
        ("of a group that is another user's first", US, 100, 0o770, True),
        ("of a group that we are not in", 0, FOREIGN, 0o775, True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("passed", [False, True])
def test_a_folder_is_open_if_others_may_write_to_it(
    what: str, uid: int, gid: int, mode: int, is_open: bool, passed: bool
) -> None:
    assert open_to_others(_about(uid, gid, mode), passed) is is_open, what


@pytest.mark.usefixtures("as_keywatch")
def test_one_as_tmp_may_be_passed_and_holds_no_code() -> None:
    assert not open_to_others(_about(0, 0, 0o1777), passed=True)
    assert open_to_others(_about(0, 0, 0o1777), passed=False)


def _about(uid: int, gid: int, mode: int) -> os.stat_result:
    return os.stat_result((stat.S_IFDIR | mode, 0, 0, 0, uid, gid, 0, 0, 0, 0))


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """NUMBA_CACHE_DIR, not yet made, three folders deep; the user's own cache folder is beside it."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "a" / "b" / "named"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    return tmp_path / "a" / "b" / "named"


def _instead(tmp_path: Path) -> Path:
    return tmp_path / "own" / "keywatch" / NAME


def test_the_named_folder_is_made_and_closed_to_others_whatever_the_umask(named: Path) -> None:
    before = os.umask(0)
    try:
        assert find_folder(NAME) == (named / NAME, [])
    finally:
        os.umask(before)
    for each in (named / NAME, named, named.parent):
        assert each.stat().st_mode & 0o777 == 0o700
    assert find_folder(NAME) == (named / NAME, []), "as it was left"


@pytest.mark.parametrize("depth", range(4))
def test_wherever_on_the_way_others_may_write_the_users_own_folder_is_taken_and_it_is_said_why(
    named: Path, tmp_path: Path, depth: int
) -> None:
    find_folder(NAME)
    opened = [named / NAME, *named.parents[:2], named][depth]
    opened.chmod(0o777)
    folder, [trouble] = find_folder(NAME)
    assert folder == _instead(tmp_path)
    assert trouble.startswith(f"{named}: others could put code there, {opened} ")
    assert "set NUMBA_CACHE_DIR to a folder of your own" in trouble


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
@pytest.mark.parametrize("depth", range(4))
def test_wherever_on_the_way_a_folder_is_somebody_elses_it_is_refused(named: Path, tmp_path: Path, depth: int) -> None:
    """As with `sudo`, which leaves HOME at the user's who called it."""
    find_folder(NAME)
    os.chown([named / NAME, *named.parents[:2], named][depth], BOB, BOB)
    assert find_folder(NAME)[0] == _instead(tmp_path)


def test_nothing_is_made_in_a_folder_that_others_may_write_to(named: Path) -> None:
    named.parent.mkdir(parents=True)
    named.parent.chmod(0o777)
    find_folder(NAME)
    assert list(named.parent.iterdir()) == []


def test_of_a_link_the_folder_that_it_led_to_counts_and_is_kept(named: Path, tmp_path: Path) -> None:
    named.parent.mkdir(parents=True)
    (tmp_path / "real").mkdir(mode=0o700)
    named.symlink_to(tmp_path / "real")
    assert find_folder(NAME) == (tmp_path / "real" / NAME, [])
    (tmp_path / "real").chmod(0o777)
    assert find_folder(NAME)[0] == _instead(tmp_path)


def test_where_none_can_be_made_each_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "ring").symlink_to(tmp_path / "ring")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "ring"))
    folder, troubles = find_folder(NAME)
    assert folder is None
    assert [re.split(": ", each)[0] for each in troubles] == [str(tmp_path / "file"), str(tmp_path / "ring/keywatch")]
