#!/bin/bash
# Give each of Keywatch's users what it needs and no more. The worker can never decide or revoke: it may not write
# api.decisions or api.responses. A test runs this script on a real cluster and tries what must work and what must not.
#   BROKERS=kafka:9092 [COMMAND_CONFIG=client.properties] [SHADOW=new] ./acls.sh
# The users (WORKER, INTAKE, LEAKS, RESPONDER, OPERATOR, ONCALL, CONSOLE) must exist: with SCRAM by kafka-configs.sh --entity-type users.
# Those with certificates are called as these say: WORKER=CN=keywatch-worker (without blanks; ssl.principal.mapping.rules cut it).
set -euo pipefail
: "${BROKERS:?host:port of a broker}" "${COMMAND_CONFIG:=}" "${SHADOW:=}"
: "${LEAKS:=keywatch-leaks}" "${WORKER:=keywatch-worker}" "${INTAKE:=keywatch-intake}" "${RESPONDER:=keywatch-respond}" "${OPERATOR:=keywatch-operator}"
: "${ONCALL:=keywatch-oncall}" "${CONSOLE:=keywatch-console}"
BIN=${KAFKA_BIN:-/opt/kafka/bin}
connect=(--bootstrap-server "$BROKERS")
if [[ -n $COMMAND_CONFIG ]]; then connect+=(--command-config "$COMMAND_CONFIG"); fi

allow() { # "user ..." "operation ..." "topic ..." ["group ..."]
    local flags=() each
    for each in $1; do flags+=(--allow-principal "User:$each"); done
    for each in $2; do flags+=(--operation "$each"); done
    for each in $3; do flags+=(--topic "$each"); done
    for each in ${4:-}; do flags+=(--group "$each"); done
    "$BIN/kafka-acls.sh" "${connect[@]}" --add --force "${flags[@]}"
}

# Everybody may see that the topics exist, and with which settings: `doctor` compares them.
allow "$WORKER $INTAKE $LEAKS $RESPONDER $OPERATOR $ONCALL $CONSOLE" "Describe DescribeConfigs" \
    "gateway.raw api.requests api.requests.rejected api.keys api.control api.incidents api.decisions api.responses
    keywatch.pages api.sightings api.key_events keywatch.sources keywatch.lifecycle"
# Intake: gateway logs in, keyed events out; what is done to keys as well.
allow "$INTAKE" Read gateway.raw keywatch-intake
allow "$INTAKE" Write "api.requests api.requests.rejected api.key_events"
# The intake of leaks (leaks.enabled), a process of its own: finds the key, tells of it, notes it in the catalogue.
allow "$LEAKS" Read api.keys
allow "$LEAKS" Write "api.incidents api.keys"
# The worker: events, catalogue, what people told and its own state in; incidents and state out; ticks into idle partitions.
# It reads its incidents back when the configuration or a side input has changed behind a crash, to close what was undone.
# Its topologies have groups, topics and state of their own; they are told by api.sightings and api.key_events.
allow "$WORKER" Read "api.requests api.sightings api.key_events api.keys api.control api.incidents keywatch.pages
    keywatch.sources keywatch.lifecycle" "keywatch keywatch-sources keywatch-lifecycle"
allow "$WORKER" Write "api.requests api.sightings api.key_events api.requests.rejected api.incidents keywatch.pages
    keywatch.sources keywatch.lifecycle"
# The responder: incidents and catalogue in; decisions and what was done, in and out. It reads requests of keys on which
# it has acted, without a group, to see whether the gateway obeys (respond.enforcement.watch = false does without).
allow "$RESPONDER" Read "api.incidents api.requests api.keys api.decisions api.responses" \
    "keywatch-respond keywatch-respond-audit"
allow "$RESPONDER" Write "api.decisions api.responses"
# It watches the workers by offsets alone: that they keep up, not what comes.
allow "$RESPONDER" Describe api.requests keywatch
# People: the catalogue (keywatch keys import), feedback, mutes and plans, and reading anything (keywatch replay --topic).
allow "$OPERATOR" Read "gateway.raw api.requests api.requests.rejected api.keys api.control api.incidents api.decisions
    api.responses api.sightings api.key_events"
allow "$OPERATOR" Write "api.keys api.control"
# The night (`keywatch respond ...`, `cases`, `drill`) and the console: words on acts and cases, feedback and mutes. Whoever
# has these may stop, undo, and propose; what needs approval needs the approvers' own signatures besides.
allow "$ONCALL $CONSOLE" Read "api.decisions api.control api.keys"
allow "$ONCALL $CONSOLE" Write "api.decisions api.control"
# A shadow (`keywatch worker --shadow NAME`): the worker's user writes what nobody reads but people.
if [[ -n $SHADOW ]]; then
    own="api.requests.rejected.shadow-$SHADOW api.incidents.shadow-$SHADOW keywatch.pages.shadow-$SHADOW"
    allow "$WORKER" "Describe DescribeConfigs Write" "$own"
    allow "$WORKER" Read "$own" "keywatch.shadow-$SHADOW"
fi
