#!/usr/bin/env bash
# Three brokers on this machine as one cluster, on loopback, until Ctrl-C.
#
#   scripts/cluster.sh                        data below data/cluster, one folder for each broker
#   scripts/cluster.sh --data-dir DIR         below DIR instead
#   scripts/cluster.sh --set name=value ...   what else is given goes to each `tidelog serve`
#
# Broker N listens on the ports 9092 (Kafka), 9093 (other brokers) and 9094 (HTTP), each plus 100 * (N - 1). On empty folders
# the first broker founds the cluster and the others join it; started again on the same folders it is the same cluster.
# Exit code: 0 after Ctrl-C or SIGTERM, once all three have stopped; 1 if a broker ended by itself or failed to stop.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tidelog=${TIDELOG_TEST_BINARY:-$repo/bin/tidelog}
folder=data/cluster
settings=()
brokers=(1 2 3)

# Without a reader of standard output, a terminal that was closed for one, the brokers are to be stopped all the same.
trap '' PIPE
say() { printf 'cluster: %s\n' "$*" 2>/dev/null || true; }
die() { printf 'cluster: %s\n' "$*" >&2; exit 1; }

while [ $# -gt 0 ]; do
  case $1 in
    --data-dir) [ $# -ge 2 ] || die "--data-dir needs a folder"; folder=$2; shift 2 ;;
    --data-dir=*) folder=${1#*=}; shift ;;
    *) settings+=("$1"); shift ;;
  esac
done
[ -x "$tidelog" ] || die "no $tidelog: run \`make build\`"
mkdir -p "$folder"

# --- brokers ---------------------------------------------------------------------------------------------

# Process ids by broker: of the broker, while it has not been waited for, and of what writes its id before its lines.
pids=()
labels=()
pipes=$(mktemp -d)
trap 'rm -rf "$pipes"' EXIT

port() { echo $((9092 + $1 + 100 * ($2 - 1))); }
kafka() { port 0 "$1"; }
peers() { port 1 "$1"; }
http() { port 2 "$1"; }

# Ctrl-C goes to all processes of the terminal's group; `setsid` keeps it from the brokers, which are to stop in turn.
start() {
  local broker=$1 join=()
  [ "$broker" -eq 1 ] || join=(--join "127.0.0.1:$(peers 1)")
  mkfifo "$pipes/$broker"
  (trap '' INT TERM HUP; exec sed -u "s/^/broker $broker | /" <"$pipes/$broker") &
  labels[broker]=$!
  setsid "$tidelog" serve --data-dir "$folder/$broker" "${join[@]}" \
    --set "node.id=$broker" \
    --set "listeners=PLAINTEXT://127.0.0.1:$(kafka "$broker")" \
    --set "inter.broker.listener=127.0.0.1:$(peers "$broker")" \
    --set "http.listeners=http://127.0.0.1:$(http "$broker")" \
    "${settings[@]}" </dev/null >"$pipes/$broker" 2>&1 &
  pids[broker]=$!
}

# The shell's own list: an id that another process has taken over meanwhile is not in it.
runs() { [[ $'\n'$(jobs -pr)$'\n' == *$'\n'"${pids[$1]}"$'\n'* ]]; }

# Waits until a broker has ended and its last line is written; its exit code.
ended() {
  local code=0
  wait "${pids[$1]}" || code=$?
  wait "${labels[$1]}" || true
  unset "pids[$1]"
  return "$code"
}

is_ready() {
  local status
  # The connection ends with the shell in which it is opened.
  status=$(
    exec 2>/dev/null
    exec 3<>"/dev/tcp/127.0.0.1/$(http "$1")" || exit 1
    printf 'GET /health/ready HTTP/1.0\r\n\r\n' >&3
    timeout 1 head -n 1 <&3
  ) || return 1
  [[ $status == *" 200 "* ]]
}

are_ready() {
  local broker
  for broker in "${brokers[@]}"; do is_ready "$broker" || return 1; done
}

# --- the cluster -----------------------------------------------------------------------------------------

is_stopping=
trap 'is_stopping=1' INT TERM HUP

is_told=
failed=0
# Broker after broker, so that each hands over what it leads to those that still run.
stop_all() {
  local broker
  for broker in "${!pids[@]}"; do
    say "stopping broker $broker"
    kill -TERM "${pids[$broker]}" 2>/dev/null || true
    # A start that is broken off fails, and is meant to.
    ended "$broker" || { say "broker $broker ended with exit code $?"; [ -z "$is_told" ] || failed=1; }
  done
}

for broker in "${brokers[@]}"; do start "$broker"; done
while [ -z "$is_stopping" ] && [ "$failed" -eq 0 ]; do
  for broker in "${!pids[@]}"; do
    if ! runs "$broker"; then
      code=0
      ended "$broker" || code=$?
      say "broker $broker ended by itself, with exit code $code; the others are stopped"
      failed=1
    fi
  done
  if [ -z "$is_told" ] && [ "$failed" -eq 0 ] && are_ready; then
    is_told=1
    addresses=127.0.0.1:$(kafka 1),127.0.0.1:$(kafka 2),127.0.0.1:$(kafka 3)
    say "three brokers are one cluster, data below $folder; Ctrl-C stops it"
    say "  clients connect to $addresses"
    say "  $tidelog cluster status --bootstrap-server $addresses"
    for broker in "${brokers[@]}"; do say "  http://127.0.0.1:$(http "$broker")/health/ready and /metrics of broker $broker"; done
  fi
  # A signal shows after this at the latest.
  [ "$failed" -ne 0 ] || sleep 0.3 || true
done

# Whoever is impatient has to wait: each broker ends within its shutdown.timeout.ms.
trap '' INT TERM HUP
stop_all
say "stopped"
exit "$failed"
