#!/usr/bin/env bash
# Prints the path of a k6, building it from its Go module when there is none.
#
#   scripts/install-k6.sh [--help]
#
# Looked for in this order: target/tools/k6, k6 on PATH. Building needs Go and takes some minutes.
# Environment: K6_VERSION (default latest).
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

tools="$ROOT/target/tools"
if [ -x "$tools/k6" ]; then
  echo "$tools/k6"
elif has k6; then
  command -v k6
elif has go; then
  say "building k6 ${K6_VERSION:-latest} with $(go version | cut -d' ' -f3)"
  mkdir -p "$tools"
  GOBIN="$tools" go install "go.k6.io/k6@${K6_VERSION:-latest}" >&2
  echo "$tools/k6"
else
  die "k6 is missing, and so is Go to build it with: install one of them"
fi
