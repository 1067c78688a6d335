"""Files and folders that only their owner reads, whatever the umask: they hold key ids, addresses, secrets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from pipeline.errors import ConfigError

FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700


def folder(path: Path) -> Path:
    """Make the folder and those above it that are missing, closed to others; one that is there stays as it is."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    for each in missing:
        each.chmod(FOLDER_MODE)
    return path


def own_folder(path: Path) -> Path:
    """The same in a place that others can write to, as /tmp. Raises ConfigError where somebody else made it first."""
    try:
        path.mkdir(mode=FOLDER_MODE)
    except FileExistsError:
        about = path.lstat()
        if path.is_symlink() or not path.is_dir() or about.st_uid != os.getuid():
            raise ConfigError(f"{path} belongs to somebody else: remove it, or set TMPDIR to one of yours") from None
    path.chmod(FOLDER_MODE)
    return path


def opened(path: Path, flags: int) -> int:
    """A descriptor of a file that is ours alone from its first moment; of an existing one, too."""
    handle = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    os.fchmod(handle, FILE_MODE)
    return handle


def write(path: Path, content: bytes) -> None:
    """The file anew."""
    with os.fdopen(opened(path, os.O_WRONLY | os.O_TRUNC), "wb") as file:
        file.write(content)


def append(path: Path, content: bytes) -> None:
    """More at the file's end."""
    with os.fdopen(opened(path, os.O_WRONLY | os.O_APPEND), "ab") as file:
        file.write(content)
