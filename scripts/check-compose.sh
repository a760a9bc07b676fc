#!/usr/bin/env bash
# Checks docker-compose.yml (by `docker compose config`, or with PyYAML where that is missing) and the load
# balancer's configuration (by `haproxy -c`, where it is installed).
#
#   scripts/check-compose.sh [--help]
#
# What cannot be checked on this machine is named with SKIP, and is no failure.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

case "${1:-}" in
  '') ;;
  --help | -h)
    print_help
    exit 0
    ;;
  *) die "unknown argument $1 (see --help)" ;;
esac

compose="$ROOT/docker-compose.yml"
python=
for candidate in python3 /usr/bin/python3; do
  if has "$candidate" && "$candidate" -c 'import yaml' 2>/dev/null; then
    python="$candidate"
    break
  fi
done

checked=
if docker compose version >/dev/null 2>&1; then
  docker compose -f "$compose" config --quiet || die "docker compose refuses docker-compose.yml"
  checked="docker compose config"
fi
if [ -n "$python" ]; then
  [ -f "$ROOT/.env.example" ] || die ".env.example is missing (make docs writes it)"
  setting_names | "$python" "$ROOT/scripts/check_compose.py" "$compose" || die "docker-compose.yml is wrong"
  checked="${checked:+$checked, }$python"
fi
if [ -n "$checked" ]; then
  say "docker-compose.yml is right (checked by $checked)"
else
  say "SKIP: neither docker compose nor PyYAML is installed, docker-compose.yml was not checked"
fi

haproxy="$(PATH="$PATH:/usr/sbin" command -v haproxy || true)"
if [ -n "$haproxy" ]; then
  # Addresses in place of the names that only exist inside compose.
  output="$(GATEWAY_1=127.0.0.1:8081 GATEWAY_2=127.0.0.1:8082 GATEWAY_3=127.0.0.1:8083 LB_LISTEN=127.0.0.1:8080 \
    "$haproxy" -c -f "$ROOT/docker/haproxy.cfg" 2>&1)" || die "haproxy refuses docker/haproxy.cfg: $output"
  say "docker/haproxy.cfg is right"
else
  say "SKIP: haproxy is missing, docker/haproxy.cfg was not checked"
fi
