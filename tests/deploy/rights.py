"""Tries statements in chDB with the rights of one role of deploy/clickhouse/users.sql, and says what each came to.

chDB has no place to keep users in, but it obeys the grants and the profile that its configuration gives to its own
user. So this puts the role's GRANT, REVOKE and settings there and runs the statements: the access control is
ClickHouse's. A process of its own, as a process has one engine: `python -m tests.deploy.rights FOLDER ROLE < JSON`.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

SQL: Final = Path(__file__).parents[2] / "deploy" / "clickhouse" / "users.sql"
ADMIN: Final = ""
"""No role: all rights, for making what the others are tried on."""


def statements() -> list[str]:
    """Those of users.sql, without comments, each on one line."""
    text = re.sub(r"--[^\n]*", "", SQL.read_text())
    return [" ".join(part.split()) for part in text.split(";") if part.strip()]


def grants_of(role: str) -> list[str]:
    """GRANT and REVOKE of a role, in order, without the role's name."""
    shape = re.compile(rf"^((?:GRANT|REVOKE) .* ON .*) (?:TO|FROM) {role}$")
    return [found[1] for found in map(shape.match, statements()) if found]


def settings_of(role: str) -> dict[str, str]:
    """The settings of the role's profile, those that may be changed too."""
    (profile,) = [each for each in statements() if "SETTINGS PROFILE" in each and each.endswith(f"TO {role}")]
    return dict(re.findall(r"(\w+) = (\d+)", profile))


def configuration(role: str, file: Path) -> str:
    """chDB's configuration, in which its user has the role's rights; it lies in `file` and names that."""
    if role == ADMIN:
        rights, settings = "<access_management>1</access_management>", ""
    else:
        queries = "".join(f"<query>{escape(grant)}</query>" for grant in grants_of(role))
        rights = f"<grants>{queries}</grants>"
        settings = "".join(f"<{name}>{value}</{name}>" for name, value in settings_of(role).items())
    return (
        "<clickhouse><users><default><password></password><profile>default</profile><quota>default</quota>"
        f"<networks><ip>::/0</ip></networks>{rights}</default></users>"
        f"<profiles><default>{settings}</default></profiles><quotas><default/></quotas>"
        f"<user_directories><users_xml><path>{file}</path></users_xml></user_directories></clickhouse>"
    )


def main() -> None:
    """Run the statements of stdin in order; print a list of error codes, 0 where it went well."""
    from chdb import session

    folder, role = Path(sys.argv[1]), sys.argv[2]
    file = folder / f"rights-{role or 'admin'}.xml"
    file.write_text(configuration(role, file))
    engine = session.Session(f"{folder / 'data'}?config-file={file}")  # type: ignore[no-untyped-call]
    codes = []
    for statement in json.load(sys.stdin):
        try:
            engine.query(statement, "TSV")  # type: ignore[no-untyped-call]
            codes.append(0)
        except Exception as error:  # noqa: BLE001  chDB raises its own and RuntimeError
            found = re.search(r"Code: (\d+)", str(error))
            codes.append(int(found[1]) if found else -1)
    print(json.dumps(codes))  # noqa: T201


if __name__ == "__main__":
    main()
