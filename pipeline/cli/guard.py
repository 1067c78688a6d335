"""What a user can run into is one line on stderr and an exit code, without a traceback (`main.py` lists them)."""

from __future__ import annotations

import errno
import functools
import os
import sys
from collections.abc import Callable
from typing import ParamSpec

import typer

from pipeline.errors import ConfigError, Fatal, Retry

P = ParamSpec("P")


def guarded(command: Callable[P, int | None]) -> Callable[P, None]:
    """A command whose expected trouble is one line and an exit code."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        raise typer.Exit(exit_code(functools.partial(command, *args, **kwargs)))

    return run


def exit_code(run: Callable[[], int | None]) -> int:
    """Run, and say in one line what went wrong."""
    try:
        return run() or 0
    except ConfigError as error:
        return _say(str(error), 2)
    except (Fatal, Retry) as error:
        return _say(str(error), 1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader went away, as `| head` does
        return 0
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        where = f" {error.filename}" if error.filename else ""
        return _say(f"the disk is full{where and f':{where}'}" if full else f"{error.strerror or error}{where}", 1)
    except KeyboardInterrupt:
        return 130


def _say(text: str, code: int) -> int:
    line = " ".join(text.split())
    sys.stderr.write(f"keywatch: {line}\n")
    return code
