"""Every command with its arguments and options, from the command itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import typer

from pipeline.cli.main import app
from pipeline.reference.words import table

HEAD: Final = """# Commands

Exit codes: 0 done; 1 something outside failed (broker, ClickHouse, disk) or a check found a fault; 2 wrong use or
configuration; 130 interrupted. What a user can run into is one line on stderr. After `keywatch --install-completion`
the shell (bash, zsh, fish) completes commands and options.

"""
COMMON: Final = ("--help", "--install-completion", "--show-completion")


def page() -> str:
    """Markdown."""
    return HEAD + "\n".join(_command(path, command) for path, command in commands(root(), "keywatch"))


def root() -> Any:
    """`keywatch` itself."""
    return typer.main.get_command(app)


def commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    """(words, command) of the group, and of what is below it; hidden ones left out."""
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        if not command.hidden:
            yield from commands(command, f"{path} {name}")


def _command(path: str, command: Any) -> str:
    arguments = [_usage(each) for each in command.params if each.param_type_name == "argument"]
    below = ["COMMAND"] if getattr(command, "commands", {}) else []
    usage = " ".join([path, "[OPTIONS]", *arguments, *below])
    rows = [_row(each) for each in command.params if not set(each.opts) & set(COMMON)]
    words = " ".join((command.help or "").split())
    options = table(("option", "default", "what it does"), rows) if rows else ""
    return f"## {path}\n\n{words}\n\n`{usage}`\n\n{options}"


def _usage(argument: Any) -> str:
    name = argument.name.upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _row(parameter: Any) -> tuple[str, str, str]:
    names = parameter.opts + parameter.secondary_opts
    name = parameter.name.upper() if parameter.param_type_name == "argument" else ", ".join(names)
    default = "needed" if parameter.required else _default(parameter.default)
    variable = f" Variable: `{parameter.envvar}`." if getattr(parameter, "envvar", None) else ""
    return f"`{name}`", default, (getattr(parameter, "help", "") or "") + variable


def _default(value: Any) -> str:
    return "" if value in (None, "", False, (), []) or callable(value) else f"`{'on' if value is True else value}`"
