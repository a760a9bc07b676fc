#!/usr/bin/env bash
# cargo-deny over the dependencies: licences, bans and sources always; advisories where their database can be had.
#
#   scripts/deny.sh [--help]
#
# Without cargo-deny it says how to get it, and succeeds.
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
cd "$ROOT"

if ! cargo deny --version >/dev/null 2>&1; then
  say "SKIP: cargo-deny is not installed (cargo install --locked cargo-deny)"
  exit 0
fi
cargo deny check licenses bans sources
if ! fetched="$(cargo deny fetch db 2>&1)"; then
  say "SKIP: the advisory database cannot be fetched: $(tail -n 1 <<<"$fetched")"
  exit 0
fi
cargo deny check advisories
