#!/usr/bin/env bash
# Succeeds when the gateway in this container answers 200. It needs no HTTP client in the image: bash opens the
# connection itself.
#
#   healthcheck.sh [PATH]     PATH is /healthz unless given
set -euo pipefail

if [ "${1:-}" = "--help" ]; then
  echo "usage: healthcheck.sh [PATH]   asks the gateway on LISTEN's port for PATH (default /healthz)"
  exit 0
fi

path="${1:-/healthz}"
listen="${LISTEN:-127.0.0.1:8080}"
port="${listen##*:}"

exec 3<>"/dev/tcp/127.0.0.1/$port"
printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$path" >&3
IFS=' ' read -r -t 2 _ status _ <&3
[ "$status" = 200 ]
