#!/bin/bash
# Make the topics, or bring their settings up to date. The same settings as pipeline/sinks/topics.py; a test compares them.
#   BROKERS=kafka:9092 PARTITIONS=8 REPLICATION=3 MIN_ISR=2 [COMMAND_CONFIG=client.properties] [SHADOW=new] ./topics.sh
# PARTITIONS can't be changed later: keys would move to other partitions, away from their state.
set -euo pipefail
: "${BROKERS:?host:port of a broker}" "${PARTITIONS:=8}" "${REPLICATION:=3}" "${MIN_ISR:=2}" "${COMMAND_CONFIG:=}" "${SHADOW:=}"
BIN=${KAFKA_BIN:-/opt/kafka/bin}
connect=(--bootstrap-server "$BROKERS")
if [[ -n $COMMAND_CONFIG ]]; then connect+=(--command-config "$COMMAND_CONFIG"); fi

topic() { # name partitions setting=value...
    local name=$1 partitions=$2 setting
    shift 2
    local settings=("min.insync.replicas=$MIN_ISR" "$@") flags=()
    for setting in "${settings[@]}"; do flags+=(--config "$setting"); done
    "$BIN/kafka-topics.sh" "${connect[@]}" --create --if-not-exists --topic "$name" \
        --partitions "$partitions" --replication-factor "$REPLICATION" "${flags[@]}"
    for setting in "${settings[@]}"; do
        "$BIN/kafka-configs.sh" "${connect[@]}" --alter --entity-type topics --entity-name "$name" --add-config "$setting"
    done
}

topic gateway.raw "$PARTITIONS"
topic api.requests "$PARTITIONS"
topic api.requests.rejected "$PARTITIONS" retention.ms=604800000
topic api.keys 1 cleanup.policy=compact
topic api.control 1 cleanup.policy=compact min.compaction.lag.ms=34560000000
topic api.incidents "$PARTITIONS"
topic api.decisions 1 cleanup.policy=delete retention.ms=2419200000 message.timestamp.type=LogAppendTime
topic api.responses 1 retention.ms=-1
topic api.sightings "$PARTITIONS"
topic api.key_events "$PARTITIONS"
# State: co-partitioned with api.requests, api.sightings and api.key_events. Small segments and early compaction keep
# recovery short.
for pages in keywatch.pages keywatch.sources keywatch.lifecycle ${SHADOW:+keywatch.pages.shadow-$SHADOW}; do
    topic "$pages" "$PARTITIONS" cleanup.policy=compact segment.bytes=67108864 min.cleanable.dirty.ratio=0.1 \
        max.compaction.lag.ms=600000
done
if [[ -n $SHADOW ]]; then # of `keywatch worker --shadow NAME`
    topic "api.incidents.shadow-$SHADOW" "$PARTITIONS"
    topic "api.requests.rejected.shadow-$SHADOW" "$PARTITIONS" retention.ms=604800000
fi
