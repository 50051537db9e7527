#!/usr/bin/env bash
# A quarter of an hour of the Azure conversation trace through lbd to six
# simulated replicas, under each strategy in turn.
#
#   bench/azure.sh TRACE [SPEED] [STRATEGY...]
#
# TRACE is AzureLLMInferenceTrace_conv.csv of the Azure public dataset
# (CC-BY-4.0), plain or gzip. SPEED divides its times (default 1: real time).
# Results go to results/azure/.
set -euo pipefail
case ${1-} in
-h | --help)
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"
  exit 0
  ;;
esac
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { echo "usage: bench/azure.sh TRACE [SPEED] [STRATEGY...]" >&2; exit 1; }
trace=$1
speed=${2:-1}
shift $(($# < 2 ? $# : 2))
strategies=("$@")
[ ${#strategies[@]} -gt 0 ] || strategies=(cycle least-waiting)
[ -r "$trace" ] || { echo "cannot read $trace" >&2; exit 1; }
awk "BEGIN { exit !(\"$speed\" + 0 > 0) }" || { echo "speed \"$speed\"; want a number above 0, such as 10" >&2; exit 1; }

make --quiet build
out=results/azure
mkdir -p "$out"
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
seconds=$(awk "BEGIN { printf \"%d\", 900 / $speed }")
for strategy in "${strategies[@]}"; do
  ./lbd sim --layout seed --listen 127.0.0.1:18001 >"$out/sim.log" 2>&1 &
  sim=$!
  ./lbd --listen 127.0.0.1:18080 --admin-listen off --log-level warn --strategy "$strategy" \
    --endpoints "$(seq -s, -f 'http://127.0.0.1:%g' 18001 18006)" 2>"$out/$strategy.log" &
  lbd=$!
  for _ in $(seq 100); do
    ./lbd health --url http://127.0.0.1:18080/ready >/dev/null 2>&1 && break
    sleep 0.1
  done
  sleep 1 # models of all six
  echo "== $strategy"
  ./lbd bench --target http://127.0.0.1:18080 --trace "$trace" --trace-format azure --trace-speed "$speed" \
    --duration "${seconds}s" --seed 1 --records=false --output "$out/$strategy.json" || true
  echo "CPU time of lbd: $(ps -o time= -p "$lbd")"
  kill "$lbd" "$sim"
  wait "$lbd" "$sim" || true
done
