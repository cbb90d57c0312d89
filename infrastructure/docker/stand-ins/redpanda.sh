#!/usr/bin/env bash
# `redpanda start`, as docker-compose.yaml and the chart call it, with Kafka in its place.
set -euo pipefail
listeners='' advertised=''
for word in "$@"; do
  case $word in
    --kafka-addr=*) listeners=${word#*=} ;;
    --advertise-kafka-addr=*) advertised=${word#*=} ;;
  esac
done
upper() { sed -E 's/(^|,)([a-z]+):/\1\U\2:/g' <<<"$1"; }
names=$(tr ',' '\n' <<<"$(upper "$listeners")" | cut -d: -f1 | sed 's/$/:PLAINTEXT/' | paste -sd,)
config=/etc/redpanda/server.properties
cat >"$config" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:9093
listeners=$(upper "$listeners"),CONTROLLER://127.0.0.1:9093
advertised.listeners=$(upper "$advertised")
listener.security.protocol.map=$names,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=INTERNAL
log.dirs=/var/lib/redpanda/data/kafka
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
PROPERTIES
java=(java -Xmx384m -cp '/opt/kafka/*')
if [ ! -e /var/lib/redpanda/data/kafka/meta.properties ]; then
  "${java[@]}" kafka.tools.StorageTool format --config "$config" --cluster-id "$("${java[@]}" kafka.tools.StorageTool random-uuid)"
fi
exec "${java[@]}" kafka.Kafka "$config"
