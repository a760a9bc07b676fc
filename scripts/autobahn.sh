#!/usr/bin/env bash
# Runs the Autobahn test suite (`wstest -m fuzzingclient`) against the gateway's echo route.
#
#   scripts/autobahn.sh [--url WS_URL] [--cases LIST] [--setup] [--help]
#
#   --url WS_URL    test the echo server there, and start no gateway
#   --cases LIST    patterns separated by commas (default *); 12 and 13 (compression, not offered) are always left out
#   --setup         install the suite only
#
# The suite runs on Python 2.7 only: python2.7 on PATH, or one of pyenv's. It is installed once, in
# target/autobahn/; the reports are in target/autobahn/reports/ (index.html).
# Environment: GATEWAY is the binary (built when not given).
#
# Exit status: 0 every case is OK, NON-STRICT or INFORMATIONAL; 1 some are not, or were not run; 2 a mistake in the
# arguments; 3 Python 2.7 or the suite cannot be had.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

suite="autobahntestsuite==25.10.1"
home="$ROOT/target/autobahn"
url=
cases="*"
setup_only=

while [ $# -gt 0 ]; do
  case "$1" in
    --url | --cases)
      [ $# -ge 2 ] || {
        say "$1 needs a value"
        exit 2
      }
      if [ "$1" = --url ]; then url="$2"; else cases="$2"; fi
      shift 2
      ;;
    --setup)
      setup_only=yes
      shift
      ;;
    --help | -h)
      print_help
      exit 0
      ;;
    *)
      say "unknown argument $1 (see --help)"
      exit 2
      ;;
  esac
done

# A python2.7 that runs: what pyenv puts on PATH may be there and refuse.
python27() {
  local candidate
  for candidate in python2.7 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7.*/bin/python2.7; do
    if "$candidate" -c 'import sys; assert sys.version_info[:2] == (2, 7)' >/dev/null 2>&1; then
      command -v "$candidate"
      return 0
    fi
  done
  return 1
}

# virtualenv 20.22 dropped Python 2.7 as a target. It is put into a directory of its own, by any Python 3; and where
# there is none, by Python 2.7 itself.
make_environment() {
  local python="$1" installer
  rm -rf "$home/venv" "$home/virtualenv"
  for installer in python3 "$python"; do
    if "$installer" -m pip install --quiet --target "$home/virtualenv" 'virtualenv<20.22' &&
      PYTHONPATH="$home/virtualenv" "$installer" -m virtualenv --quiet --python "$python" "$home/venv"; then
      return 0
    fi
    rm -rf "$home/venv" "$home/virtualenv"
  done
  return 1
}

wstest="$home/venv/bin/wstest"
if [ ! -f "$home/installed" ] || [ "$(cat "$home/installed")" != "$suite" ]; then
  python="$(python27)" || {
    say "Python 2.7 is missing, and the Autobahn suite runs on nothing else (pyenv install 2.7.18)"
    exit 3
  }
  mkdir -p "$home"
  say "installing $suite for $python"
  if ! make_environment "$python" >"$home/install.log" 2>&1 ||
    ! "$home/venv/bin/pip" install "$suite" >>"$home/install.log" 2>&1 ||
    ! "$wstest" --autobahnversion >>"$home/install.log" 2>&1; then
    tail -n 5 "$home/install.log" >&2
    say "the suite could not be installed (all of it: target/autobahn/install.log)"
    exit 3
  fi
  echo "$suite" >"$home/installed"
fi
[ -z "$setup_only" ] || exit 0

pids=()
# shellcheck disable=SC2317  # called by the trap
cleanup() {
  trap '' INT TERM
  [ ${#pids[@]} -eq 0 ] || stop "${pids[@]}"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ -z "$url" ]; then
  gateway="${GATEWAY:-}"
  if [ -z "$gateway" ]; then
    (cd "$ROOT" && cargo build --release -p roomgate)
    gateway="$ROOT/target/release/roomgate"
  fi
  port="$(free_port)"
  # Group 9 sends messages of 16 MiB, and each must come back whole.
  TEST_ECHO=true LISTEN="127.0.0.1:$port" NODE_ID=autobahn AUTH_MODE=anonymous ROOM_STORE=memory LOG_LEVEL=warn \
    DRAIN_SECONDS=2 MAX_FRAME_BYTES=33554432 OUTBOX_BYTES=67108864 \
    "$gateway" </dev/null >"$home/gateway.log" 2>&1 &
  pids+=($!)
  if ! wait_ready "$!" "$port" /readyz 15; then
    tail -n 20 "$home/gateway.log" >&2
    die "the gateway did not become ready"
  fi
  url="ws://127.0.0.1:$port/echo"
fi

rm -rf "$home/reports"
cat >"$home/spec.json" <<EOF
{
  "outdir": "$home/reports",
  "servers": [{ "agent": "roomgate", "url": "$url" }],
  "cases": ["${cases//,/\", \"}"],
  "exclude-cases": ["12.*", "13.*"],
  "exclude-agent-cases": {}
}
EOF
say "running against $url (some minutes)"
"$wstest" --mode fuzzingclient --spec "$home/spec.json" </dev/null >"$home/wstest.log" 2>&1 &
wstest_pid=$!
pids+=("$wstest_pid")
status=0
wait "$wstest_pid" || status=$?
[ "$status" -eq 0 ] || say "wstest ended with status $status (target/autobahn/wstest.log)"

# How many cases there should be is what wstest said before it began: a server that dies on the way is not a pass.
"$home/venv/bin/python" - "$home/reports/index.json" "$home/wstest.log" <<'EOF' || exit 1
from __future__ import print_function

import collections
import json
import os
import re
import sys

report, log = sys.argv[1:]
announced = re.search(r"will run (\d+) test cases", open(log).read())
expected = int(announced.group(1)) if announced else 0
results = {}
if os.path.exists(report):
    for agent in json.load(open(report)).values():
        results.update(agent)

allowed = {"OK", "NON-STRICT", "INFORMATIONAL"}
failed = {
    case: result
    for case, result in results.items()
    if result["behavior"] not in allowed or result["behaviorClose"] not in allowed
}

for what, key in ("cases", "behavior"), ("closes", "behaviorClose"):
    counts = collections.Counter(result[key] for result in results.values())
    print("%s: %s" % (what, ", ".join("%d %s" % (n, name) for name, n in sorted(counts.items())) or "none"))
for case in sorted(failed, key=lambda id: [int(part) for part in id.split(".")]):
    result = failed[case]
    print("  %-8s %s, close %s (code %s)" % (case, result["behavior"], result["behaviorClose"], result["remoteCloseCode"]))
if not results or len(results) != expected:
    print("only %d of %d cases were run" % (len(results), expected))
    sys.exit(1)
print("%d of %d cases passed" % (len(results) - len(failed), len(results)))
sys.exit(1 if failed else 0)
EOF
