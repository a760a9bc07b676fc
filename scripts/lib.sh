# shellcheck shell=bash
# What the scripts have in common. Sourced, never run: `. "$(dirname "$0")/lib.sh"`.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

# The leading comment of a script is its help.
print_help() {
  awk 'NR > 1 { if (/^#/) { sub(/^# ?/, ""); print } else exit }' "$0"
}

# Some scripts print their result on stdout, so what is said to people goes to stderr.
say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; }

die() {
  say "$*"
  exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

# A loopback port on which nobody listens, below the range that outgoing connections are given.
# Someone else may take it before it is used; then what was to listen there fails to start, and says so.
free_port() {
  local port try
  for try in {1..200}; do
    port=$((20000 + (RANDOM * 32768 + RANDOM + try) % 12000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "$port"
      return 0
    fi
  done
  say "no free port found"
  return 1
}

# http_status PORT PATH: the status that 127.0.0.1:PORT answers, nothing when it does not.
http_status() (
  exec 2>/dev/null
  exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 0
  printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$2" >&3
  IFS=' ' read -r -t 2 _ status _ <&3 && echo "$status"
)

# wait_ready PID PORT PATH SECONDS: until PATH answers 200. Fails when PID ends or the time is over.
wait_ready() {
  local deadline=$((SECONDS + $4))
  until [ "$(http_status "$2" "$3")" = 200 ]; do
    kill -0 "$1" 2>/dev/null || return 1
    [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 0.05
  done
}

# stop PID...: SIGTERM, at most 10 s of patience, then SIGKILL.
stop() {
  local pid deadline=$((SECONDS + 10))
  for pid in "$@"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "$@"; do
    while kill -0 "$pid" 2>/dev/null; do
      if [ "$SECONDS" -ge "$deadline" ]; then
        kill -KILL "$pid" 2>/dev/null || true
        break
      fi
      sleep 0.05
    done
    wait "$pid" 2>/dev/null || true
  done
}

# The names in .env.example, one a line: every setting that the gateway knows. Lines are `NAME=…` or `# NAME=…`.
setting_names() {
  sed -nE 's/^#? ?([A-Z][A-Z0-9_]*)=.*/\1/p' "$ROOT/.env.example" | sort -u
}
