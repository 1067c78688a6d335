#!/bin/bash
# Make the secrets that compose.yaml mounts, once each: 32 random bytes in hex, readable by containers, not by the group.
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p secrets
chmod 700 secrets
names="clickhouse_admin clickhouse_writer clickhouse_console clickhouse_reader clickhouse_privacy console_token grafana_admin"
for name in $names intake_token pepper; do
    if [[ ! -s secrets/$name ]]; then
        od -A n -t x1 -N 32 /dev/urandom | tr -d ' \n' > "secrets/$name"
        chmod 444 "secrets/$name" # the folder is closed; services read their file as different users
    fi
done
