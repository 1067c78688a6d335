"""Where compiled code is kept: numba unpickles and runs what lies there, so nobody but us and root may put it there.

Every folder on the way counts: who may write to one can put another in place of the next, also after we have looked.
What Kubernetes makes of a volume for a pod's `fsGroup` is taken: root's, with the set-group-ID bit and a group of ours
in which nobody else is; an emptyDir is open to others besides (mode 2777), of whom a pod has none.
Source: Kubernetes, "Configure a Security Context for a Pod or Container"; its `SetVolumeOwnership`.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path


def find_folder(name: str) -> tuple[Path | None, list[str]]:
    """The folder of this name in the first place that will do, or None; and what is wrong with those before it."""
    refused: list[str] = []
    for base in _places():
        try:
            folder = (base / name).resolve()
            trouble = _trouble(folder)
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a ring
            trouble = str(error)
        if not trouble:
            return folder, refused
        refused.append(f"{base}: {trouble}")
    return None, refused


def _places() -> Iterator[Path]:
    """NUMBA_CACHE_DIR, then the user's cache folder."""
    if named := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(named)
    if cache := os.environ.get("XDG_CACHE_HOME"):
        yield Path(cache) / "keywatch"
        return
    try:
        yield Path.home() / ".cache" / "keywatch"
    except RuntimeError:  # no home folder
        return


def _trouble(folder: Path) -> str:
    """Why it won't do, or nothing. Makes what is missing, closed to others, below what can be trusted."""
    for each in (*reversed(folder.parents), folder):
        each.mkdir(mode=0o700, exist_ok=True)
        if open_to_others(each.stat(), passed=each != folder):
            return (
                f"others could put code there, {each} is theirs or they may write to it; close it to them, or set "
                "NUMBA_CACHE_DIR to a folder of your own (in Kubernetes, give the pod an fsGroup)"
            )
    return "" if os.access(folder, os.W_OK | os.X_OK) else "can't be written to"


def open_to_others(about: os.stat_result, passed: bool) -> bool:
    """Whether others could put something of theirs into this folder, or, if it is only passed, replace what is ours."""
    if about.st_uid not in (0, os.geteuid()):
        return True
    if not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return False
    if passed and about.st_mode & stat.S_ISVTX:  # as /tmp: nobody removes what is not his
        return False
    of_pod = about.st_uid == 0 and about.st_mode & stat.S_ISGID
    return not _only_ours(about.st_gid) or bool(about.st_mode & stat.S_IWOTH and not of_pod)


def _only_ours(gid: int) -> bool:
    """Whether a group is one of ours and nobody else's, of all users whom the system lists; root needs no group."""
    users = pwd.getpwall()
    ours = [user for user in users if user.pw_uid in (0, os.geteuid())]
    try:
        named = grp.getgrgid(gid).gr_mem
    except KeyError:  # a number without a name
        named = []
    return (
        gid in (os.getegid(), *os.getgroups())
        and all(user in ours for user in users if user.pw_gid == gid)
        and {*named} <= {user.pw_name for user in ours}
    )
