#!/usr/bin/env bash
# Starts a Redis of its own and several gateways on free loopback ports, runs a command against them, stops all.
#
#   scripts/two-gateways.sh [-n GATEWAYS] [-- COMMAND [ARGUMENT...]]
#
# COMMAND finds the gateways in ROOMGATE_URLS (http://127.0.0.1:PORT, separated by commas) and Redis in REDIS_URL;
# its exit status is this script's. Without a command the addresses are printed and everything stays up until Ctrl-C;
# a gateway that is killed meanwhile is started again after RESTART_SECONDS (20), on its port.
#
#   -n GATEWAYS    how many (default 2)
#   --help
#
# Environment: GATEWAY is the binary (default target/release/roomgate). The gateways inherit the environment, so any
# setting can be given; AUTH_MODE is anonymous, LOG_LEVEL warn and DRAIN_SECONDS 2 unless set.
# A gateway that dies on the way makes the run fail, whatever the command says; its log is kept.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

count=2
while [ $# -gt 0 ]; do
  case "$1" in
    -n)
      count="${2:-}"
      shift 2 || die "-n needs a number"
      ;;
    --help | -h)
      print_help
      exit 0
      ;;
    --)
      shift
      break
      ;;
    *) die "unknown argument $1 (see --help)" ;;
  esac
done
[[ "$count" =~ ^[1-9][0-9]?$ ]] || die "-n takes a number from 1 to 99"

gateway="${GATEWAY:-$ROOT/target/release/roomgate}"
[ -x "$gateway" ] || die "no gateway at $gateway (cargo build --release -p roomgate)"
has redis-server || die "redis-server is missing (scripts/install-test-deps.sh)"

dir="$(mktemp -d "${TMPDIR:-/tmp}/roomgate.XXXXXX")"
redis_pid=
command_pid=
gateway_pids=()
keep_logs=

# shellcheck disable=SC2317  # called by the trap
cleanup() {
  trap '' INT TERM
  [ -z "$command_pid" ] || stop "$command_pid"
  [ ${#gateway_pids[@]} -eq 0 ] || stop "${gateway_pids[@]}"
  [ -z "$redis_pid" ] || stop "$redis_pid"
  if [ -n "$keep_logs" ]; then say "logs are in $dir"; else rm -rf "$dir"; fi
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# fail LOG TEXT
fail() {
  keep_logs=yes
  say "$2"
  tail -n 20 "$1" >&2 || true
  exit 1
}

redis_port="$(free_port)"
redis-server --port "$redis_port" --bind 127.0.0.1 --save '' --appendonly no --dir "$dir" \
  --maxmemory-policy noeviction >"$dir/redis.log" 2>&1 &
redis_pid=$!
deadline=$((SECONDS + 10))
until (exec 3<>"/dev/tcp/127.0.0.1/$redis_port") 2>/dev/null; do
  kill -0 "$redis_pid" 2>/dev/null || fail "$dir/redis.log" "redis-server did not start"
  [ "$SECONDS" -lt "$deadline" ] || fail "$dir/redis.log" "redis-server does not answer"
  sleep 0.05
done
export REDIS_URL="redis://127.0.0.1:$redis_port"

# start NUMBER: the gateway of that number, on its port, and waits until it is ready.
ports=()
start() {
  LISTEN="127.0.0.1:${ports[$1 - 1]}" NODE_ID="gw-$1" AUTH_MODE="${AUTH_MODE:-anonymous}" \
    MAX_COMMANDS_PER_SECOND="${MAX_COMMANDS_PER_SECOND:-0}" \
    LOG_LEVEL="${LOG_LEVEL:-warn}" DRAIN_SECONDS="${DRAIN_SECONDS:-2}" \
    "$gateway" </dev/null >>"$dir/gw-$1.log" 2>&1 &
  gateway_pids[$1 - 1]=$!
  wait_ready "$!" "${ports[$1 - 1]}" /readyz 15 || fail "$dir/gw-$1.log" "gw-$1 did not become ready"
}

urls=()
for ((i = 1; i <= count; i++)); do
  ports+=("$(free_port)")
  start "$i"
  urls+=("http://127.0.0.1:${ports[i - 1]}")
done
ROOMGATE_URLS="$(IFS=,; echo "${urls[*]}")"
export ROOMGATE_URLS

# The number of the first gateway that is gone, nothing when all are there.
dead_gateway() {
  local i
  for i in "${!gateway_pids[@]}"; do
    kill -0 "${gateway_pids[i]}" 2>/dev/null || {
      echo $((i + 1))
      return
    }
  done
}

if [ $# -eq 0 ]; then
  for i in "${!urls[@]}"; do echo "gw-$((i + 1))  ${urls[i]}/  pid ${gateway_pids[i]}"; done
  echo "redis $REDIS_URL"
  echo "Ctrl-C stops them. Kill one (kill -9 PID) and watch: it is started again after ${RESTART_SECONDS:-20} s."
  while true; do
    gone="$(dead_gateway)"
    if [ -n "$gone" ]; then
      echo "gw-$gone is gone"
      sleep "${RESTART_SECONDS:-20}"
      start "$gone"
      echo "gw-$gone  ${urls[gone - 1]}/  pid ${gateway_pids[gone - 1]}"
    fi
    sleep 0.5
  done
fi

status=0
"$@" <&0 &
command_pid=$!
wait "$command_pid" || status=$?
command_pid=
gone="$(dead_gateway)"
[ -z "$gone" ] || fail "$dir/gw-$gone.log" "gw-$gone died while the command ran"
exit "$status"
