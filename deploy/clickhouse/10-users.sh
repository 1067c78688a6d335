#!/bin/bash
# Runs once, when the container makes its database: users and rights, passwords from the mounted secrets.
set -euo pipefail
secret() { cat "/run/secrets/$1"; }
clickhouse-client --user "$CLICKHOUSE_USER" --password "$(secret clickhouse_admin)" \
    --param_writer="$(secret clickhouse_writer)" --param_reader="$(secret clickhouse_reader)" \
    --param_console="$(secret clickhouse_console)" --param_privacy="$(secret clickhouse_privacy)" \
    --queries-file /keywatch/users.sql
