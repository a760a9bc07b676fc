#!/usr/bin/env bash
# Installs the Node packages of the browser test (`npm ci`), where they are not there yet or the lock file is newer.
#
#   scripts/browser-deps.sh DIRECTORY
#   scripts/browser-deps.sh --help
#
# Without node it says SKIP and succeeds: the browser test then skips too.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

case "${1:-}" in
  --help | -h)
    print_help
    exit 0
    ;;
  '') die "which directory? (see --help)" ;;
esac
cd "$ROOT/$1"

if ! has npm; then
  say "SKIP: npm is missing, the browser test will not run"
  exit 0
fi
[ -f package-lock.json ] || die "$1/package-lock.json is missing (npm install writes it)"
# npm writes this file last.
installed=node_modules/.package-lock.json
if [ -f "$installed" ] && [ ! package-lock.json -nt "$installed" ] && [ ! package.json -nt "$installed" ]; then
  exit 0
fi
say "npm ci in $1"
# The browser is the machine's own.
PUPPETEER_SKIP_DOWNLOAD=true PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --no-audit --no-fund --loglevel=error >&2
touch "$installed"
