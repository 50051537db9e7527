#!/usr/bin/env bash
# Stops an environment and removes its containers and networks.
set -euo pipefail
# shellcheck source=scripts/environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<'END'
Usage: scripts/teardown.sh ENV|all [--volumes]

Stops ENV, which is baseline, managed, shared-gpu or sim: lbd first, which lets
running answers finish for up to a minute. all is every one of them. The downloaded
models are kept. Once more is harmless.

  --volumes  also remove what Prometheus and Grafana have stored; the models stay
END
}

env='' volumes=
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit ;;
    --volumes) volumes=1 ;;
    -*) fail "unknown flag $1" "scripts/teardown.sh --help" ;;
    *)
      [ -z "$env" ] || fail "two environments, $env and $1; want one, or all"
      env=$1
      ;;
  esac
  shift
done
[ -n "$env" ] || { usage >&2; exit 1; }
if [ "$env" = all ]; then
  chosen=("${environments[@]}")
else
  known "$env"
  chosen=("$env")
fi
need_docker

# The files ask for a token, which stopping does not need.
HF_TOKEN=$(setting HF_TOKEN)
export HF_TOKEN=${HF_TOKEN:-not-needed-to-stop}
for env in "${chosen[@]}"; do
  if [ -z "$(containers "$env" --all)" ]; then
    echo "$env is not there"
  else
    step "stopping $env"
    compose "$env" --profile monitoring down --remove-orphans
  fi
  if [ -n "$volumes" ]; then
    # By name: `down --volumes` would take the models along.
    for volume in prometheus grafana; do
      if docker volume rm "lbd-${env}_$volume" >/dev/null 2>&1; then
        echo "removed volume lbd-${env}_$volume"
      fi
    done
  fi
done
