#!/bin/bash
# All of compose.yaml with one command: secrets are made once, then everything is built and started.
#   deploy/up.sh [--traffic] [options of docker compose up, e.g. --detach]
set -euo pipefail
cd "$(dirname "$0")"
./secrets.sh
options=()
if [[ ${1:-} == --traffic ]]; then
    shift
    options=(--env-file traffic.env)
fi
exec docker compose ${options[@]+"${options[@]}"} up --build "$@" # macOS has a bash to which an empty list is unset
