#!/usr/bin/env bash
# Sees to it that this machine has what `make test` needs.
#
#   scripts/install-test-deps.sh [--check] [--help]
#
#   --check    install nothing, only say what is missing
#
# Required: cargo with clippy and rustfmt, a C compiler, redis-server 7.0 or later.
# Optional: node and npm, chromium (browser test); kubectl (k8s/); PyYAML or docker compose, haproxy (compose). What
# is missing of these is named with SKIP, and the tests that need it skip too.
#
# With apt-get, and root or a sudo that asks no password, what is missing is installed. Redis is then only a program
# for the tests: its service is not started. A Redis that runs already is left alone.
#
# Exit status: 0 all that is required is there, 1 something is not.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

check_only=
case "${1:-}" in
  '') ;;
  --check) check_only=yes ;;
  --help | -h)
    print_help
    exit 0
    ;;
  *) die "unknown argument $1 (see --help)" ;;
esac
# cargo's answers depend on the directory (a toolchain file may be there).
cd "$ROOT"

redis_is_new_enough() {
  local version
  version="$(redis-server --version 2>/dev/null | sed -nE 's/.*v=([0-9]+)\..*/\1/p')"
  [ "${version:-0}" -ge 7 ]
}

node_is_new_enough() {
  local version
  version="$(node --version 2>/dev/null | sed -nE 's/^v([0-9]+)\..*/\1/p')"
  [ "${version:-0}" -ge 18 ] && has npm
}

has_chromium() {
  [ -n "${CHROME:-}" ] || has chromium || has chromium-browser || has google-chrome || has google-chrome-stable
}

can_check_yaml() {
  python3 -c 'import yaml' 2>/dev/null || /usr/bin/python3 -c 'import yaml' 2>/dev/null ||
    docker compose version >/dev/null 2>&1
}

has_haproxy() { has haproxy || [ -x /usr/sbin/haproxy ]; }

# there WHAT: whether it can be used here.
there() {
  case "$1" in
    cargo) has cargo ;;
    clippy) cargo clippy --version >/dev/null 2>&1 ;;
    rustfmt) cargo fmt --version >/dev/null 2>&1 ;;
    cc) has cc || has gcc || has clang ;;
    redis) redis_is_new_enough ;;
    node) node_is_new_enough ;;
    chromium) has_chromium ;;
    kubectl) has kubectl || has kustomize ;;
    yaml) can_check_yaml ;;
    haproxy) has_haproxy ;;
  esac
}

# advice WHAT: what it is for and how to get it.
advice() {
  case "$1" in
    cargo) echo "cargo (Rust 1.88 or later): install rustup, see rustup.rs" ;;
    clippy) echo "clippy: rustup component add clippy" ;;
    rustfmt) echo "rustfmt: rustup component add rustfmt" ;;
    cc) echo "a C compiler (the allocator and TLS are C): apt-get install build-essential" ;;
    redis) echo "redis-server 7.0 or later (most tests): apt-get install redis-server, or redis.io/downloads" ;;
    node) echo "node 18 or later with npm (browser test): apt-get install nodejs npm, or nodejs.org" ;;
    chromium) echo "chromium (browser test): apt-get install chromium, or set CHROME to one" ;;
    kubectl) echo "kubectl (check of k8s/): see kubernetes.io/docs/tasks/tools" ;;
    yaml) echo "docker compose or PyYAML (check of docker-compose.yml): apt-get install python3-yaml" ;;
    haproxy) echo "haproxy (check of its configuration): apt-get install haproxy" ;;
  esac
}

# packages WHAT: Debian's and Ubuntu's names for it.
packages() {
  case "$1" in
    cc) echo build-essential ;;
    redis) echo redis-server ;;
    node) echo nodejs npm ;;
    chromium) echo chromium ;;
    kubectl) echo kubectl ;;
    yaml) echo python3-yaml ;;
    haproxy) echo haproxy ;;
  esac
}

missing() {
  local what
  for what in "$@"; do there "$what" || echo "$what"; done
}

# --- apt -----------------------------------------------------------------------------------------------------------

as_root=()
may_install() {
  [ -z "$check_only" ] && has apt-get || return 1
  [ "$(id -u)" -eq 0 ] && return 0
  as_root=(sudo -n)
  has sudo && sudo -n true 2>/dev/null
}

# While packages are installed this file says no to every service that they would start (Debian policy, 9.3.3).
policy=/usr/sbin/policy-rc.d
policy_saved=
forbid_services() {
  policy_saved="$(mktemp -d)"
  [ ! -e "$policy" ] || "${as_root[@]}" cp -p "$policy" "$policy_saved/"
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
  "${as_root[@]}" chmod 755 "$policy"
}
allow_services() {
  [ -n "$policy_saved" ] || return 0
  if [ -e "$policy_saved/policy-rc.d" ]; then
    "${as_root[@]}" cp -p "$policy_saved/policy-rc.d" "$policy"
  else
    "${as_root[@]}" rm -f "$policy"
  fi
  rm -rf "$policy_saved"
  policy_saved=
}

apt_get() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
    apt-get -qq -o DPkg::Lock::Timeout=120 -o Acquire::Retries=2 "$@" </dev/null
}

# Each by itself: one that cannot be had takes no other with it. A name that this distribution has not is passed over,
# and where that leaves nothing, the package lists are not even fetched.
install() {
  local what log names
  local wanted=()
  for what in "$@"; do
    read -ra names <<<"$(packages "$what")"
    if ! compgen -G '/var/lib/apt/lists/*Packages*' >/dev/null || apt-cache show "${names[@]}" >/dev/null 2>&1; then
      wanted+=("$what")
    fi
  done
  [ ${#wanted[@]} -gt 0 ] || return 0

  log="$(mktemp)"
  trap allow_services EXIT
  forbid_services
  apt_get update >"$log" 2>&1 || say "apt-get update failed: $(tail -n 1 "$log")"
  for what in "${wanted[@]}"; do
    read -ra names <<<"$(packages "$what")"
    apt-cache show "${names[@]}" >/dev/null 2>&1 || continue
    say "installing ${names[*]}"
    apt_get install --no-install-recommends "${names[@]}" >"$log" 2>&1 || tail -n 3 "$log" >&2
    # Nor is it to start with the next boot, when it is there only because of us.
    if [ "$what" = redis ] && [ -d /run/systemd/system ]; then
      "${as_root[@]}" systemctl disable --quiet redis-server >/dev/null 2>&1 || true
    fi
  done
  allow_services
  rm -f "$log"
}

# --- what is there, what is not ------------------------------------------------------------------------------------

required=(cargo clippy rustfmt cc redis)
optional=(node chromium kubectl yaml haproxy)

mapfile -t lacking < <(missing "${required[@]}" "${optional[@]}")
if [ ${#lacking[@]} -eq 0 ]; then
  say "all there"
  exit 0
fi

for component in clippy rustfmt; do
  if [ -z "$check_only" ] && [[ " ${lacking[*]} " == *" $component "* ]] && has rustup; then
    say "installing $component"
    rustup --quiet component add "$component" >&2 || true
  fi
done

from_apt=()
for what in "${lacking[@]}"; do
  # An old Redis may be somebody's service, and an upgrade would restart it.
  if [ "$what" = redis ] && has redis-server; then continue; fi
  [ -z "$(packages "$what")" ] || from_apt+=("$what")
done
if [ ${#from_apt[@]} -gt 0 ] && may_install; then install "${from_apt[@]}"; fi

failed=
for what in $(missing "${required[@]}"); do
  say "MISSING: $(advice "$what")"
  failed=yes
done
for what in $(missing "${optional[@]}"); do
  say "SKIP: $(advice "$what")"
done
[ -z "$failed" ]
