#!/usr/bin/env bash
# Checks k8s/: every base and overlay renders; whatever stands in a ConfigMap or in a container's `env` is a setting
# of the gateway (.env.example has them all); a pod is given the time to drain.
#
#   scripts/check-k8s.sh [--help]
#
# Without kubectl it says SKIP and succeeds.
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

if has kubectl; then
  render() { kubectl kustomize "$1"; }
elif has kustomize; then
  render() { kustomize build "$1"; }
else
  say "SKIP: kubectl is missing, k8s/ was not checked"
  exit 0
fi
[ -f "$ROOT/.env.example" ] || die ".env.example is missing (make docs writes it)"

# Reads what was rendered (its form is regular: two blanks a level) and prints `setting NAME VALUE` for each key of a
# ConfigMap, `setting NAME` for each variable of a container, and the numbers and probes of the Deployment.
# shellcheck disable=SC2016
facts='
  function flush(  i, line, kind, part) {
    for (i = 1; i <= n; i++) if (doc[i] ~ /^kind: /) kind = substr(doc[i], 7)
    for (i = 1; i <= n; i++) {
      line = doc[i]
      if (line ~ /^[^ ]/) part = line
      if (kind == "ConfigMap" && part == "data:" && line ~ /^  [^ ][^:]*:/) {
        split(line, field, ":"); gsub(/ /, "", field[1])
        value = line; sub(/^[^:]*: */, "", value); gsub(/"/, "", value)
        print "setting", field[1], value
      }
      if (kind == "Deployment") {
        if (line ~ /^ *(- )?name: [A-Z][A-Z0-9_]*$/) { sub(/^.*name: /, "", line); print "setting", line }
        if (line ~ /^ *replicas: /) print "replicas", tail(line)
        if (line ~ /^ *terminationGracePeriodSeconds: /) print "grace", tail(line)
        if (line ~ /^ *preStop:/ && doc[i + 1] ~ /sleep:/) print "prestop", tail(doc[i + 2])
        if (line ~ /^ *(startup|liveness|readiness)Probe:/) { sub(/:.*/, "", line); gsub(/ /, "", line); print "probe", line }
      }
    }
    n = 0
  }
  function tail(line) { sub(/^[^:]*: */, "", line); return line }
  /^---$/ { flush(); next }
  { doc[++n] = $0 }
  END { flush() }'

settings="$(setting_names)"
failed=
problem() {
  say "$1: $2"
  failed=yes
}

for kustomization in "$ROOT"/k8s/base/kustomization.yaml "$ROOT"/k8s/overlays/*/kustomization.yaml; do
  [ -f "$kustomization" ] || continue
  dir="$(dirname "${kustomization#"$ROOT"/}")"
  rendered="$(render "$ROOT/$dir")" || {
    problem "$dir" "does not render"
    continue
  }
  found="$(awk "$facts" <<<"$rendered")"
  fact() { awk -v key="$1" '$1 == key { print $2; exit }' <<<"$found"; }

  while read -r name; do
    grep -qxF -- "$name" <<<"$settings" || problem "$dir" "$name is not a setting of the gateway"
  done < <(awk '$1 == "setting" { print $2 }' <<<"$found")

  for probe in startupProbe livenessProbe readinessProbe; do
    grep -qx "probe $probe" <<<"$found" || problem "$dir" "the Deployment has no $probe"
  done

  grace="$(fact grace)" prestop="$(fact prestop)"
  drain="$(awk '$2 == "DRAIN_SECONDS" { print $3 }' <<<"$found")"
  if [ -z "$grace" ] || [ -z "$prestop" ] || [ -z "$drain" ]; then
    problem "$dir" "terminationGracePeriodSeconds, a preStop sleep and DRAIN_SECONDS must all be given"
  elif [ "$grace" -le $((prestop + drain)) ]; then
    problem "$dir" "terminationGracePeriodSeconds ($grace) must be more than preStop ($prestop) and DRAIN_SECONDS ($drain) together"
  fi
  [ -n "$failed" ] || say "$dir is right ($(grep -c '^setting' <<<"$found") settings, $(fact replicas) replicas)"
done
[ -z "$failed" ]
