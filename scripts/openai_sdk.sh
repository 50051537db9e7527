#!/usr/bin/env bash
# Drives lbd with OpenAI's clients for Python and Node, and with Anthropic's for
# Python, in front of simulated replicas of both vLLM generations (the Messages
# API came after the older one). Needs Go, python3 with venv and PyPI; node
# and npm, or that half is skipped.
#
#   scripts/openai_sdk.sh
set -euo pipefail
case ${1-} in
-h | --help)
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"
  exit 0
  ;;
esac
cd "$(dirname "$0")/.."
python_version=3.54.0
node_version=6.49.0
anthropic_version=2.12.0
model=meta-llama/Llama-3.1-8B-Instruct
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$work"' EXIT

command -v python3 >/dev/null || { echo "python3 is missing" >&2; exit 1; }
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "openai==$python_version" "anthropic==$anthropic_version"
node=
if command -v npm >/dev/null; then
  node=$work/node
  mkdir "$node"
  # An import is looked up from the script's own directory.
  cp scripts/openai_sdk.mjs "$node/"
  npm install --prefix "$node" --silent --no-audit --no-fund "openai@$node_version"
else
  echo "npm is missing: OpenAI's client for Node is not tried" >&2
fi
CGO_ENABLED=0 go build -o "$work/lbd" ./cmd/lbd

failed=0
for profile in v0.19 v0.6.4; do
  echo "== vLLM $profile"
  "$work/lbd" sim --listen 127.0.0.1:18001 --replicas 2 --profile "$profile" --speed 10 \
    --model "$model" >"$work/sim.log" 2>&1 &
  sim=$!
  "$work/lbd" --listen 127.0.0.1:18080 --admin-listen off --log-level warn \
    --endpoints http://127.0.0.1:18001,http://127.0.0.1:18002 &
  lbd=$!
  for _ in $(seq 100); do
    "$work/lbd" health --url http://127.0.0.1:18080/ready >/dev/null 2>&1 && break
    sleep 0.1
  done
  "$work/venv/bin/python" scripts/openai_sdk.py http://127.0.0.1:18080/v1 http://127.0.0.1:18080/metrics || failed=1
  if [ "$profile" != v0.6.4 ]; then
    "$work/venv/bin/python" scripts/anthropic_sdk.py http://127.0.0.1:18080 http://127.0.0.1:18080/metrics "$model" || failed=1
  fi
  if [ -n "$node" ]; then
    node "$node/openai_sdk.mjs" http://127.0.0.1:18080/v1 http://127.0.0.1:18080/metrics || failed=1
  fi
  kill "$lbd" "$sim"
  wait "$lbd" "$sim" 2>/dev/null || true
done
exit $failed
