#!/usr/bin/env bash
# Two environments of simulated replicas, the same requests to both, and a page
# that compares them. No GPU needed; under five minutes.
#
#   bench/compare.sh            (make compare)
#
# Baseline is an lbd that takes turns (cycle), managed one that knows queues and prompts.
# Each has six simulated vLLM replicas of its own. REPEATS (3) rounds with seeds
# 1, 2, 3 ... go to both, one environment after the other, the order changing from
# round to round, so that neither always meets the warmer machine. Results go to
# results/baseline and results/managed, the page to results/compare.html.
#
# Other settings: RATE (30 requests/s to each), SECONDS_EACH (24), STRATEGY
# (least-cost), BASELINE_STRATEGY (cycle), LBD (a binary instead of a build).
set -euo pipefail
case ${1-} in
-h | --help)
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"
  exit 0
  ;;
esac
cd "$(dirname "$0")/.."

repeats=${REPEATS:-3}
rate=${RATE:-30}
seconds=${SECONDS_EACH:-24}
warmup=3
declare -A strategy=([baseline]=${BASELINE_STRATEGY:-cycle} [managed]=${STRATEGY:-least-cost})
# Long prompts of very different lengths and short answers, at about four fifths
# of what the replicas can do: the traffic of lbd demo.
lengths=(--input-tokens "lognormal:4000,0.9,16..30000" --output-tokens "lognormal:40,0.6,1..1000")
note="Simulated replicas: the figures rank the two environments, they do not measure GPUs."

work=$(mktemp -d)
pids=()
# shellcheck disable=SC2317 # called by the trap
finish() {
  status=$?
  trap - EXIT
  trap '' INT TERM HUP # whatever was started is stopped, however often one asks
  if [ ${#pids[@]} -gt 0 ]; then
    kill "${pids[@]}" 2>/dev/null || true
    wait "${pids[@]}" 2>/dev/null || true
  fi
  rm -rf "$work"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

die() {
  echo "compare: $*" >&2
  exit 2
}

# background LOG CMD... runs until the end of this script.
background() {
  local log=$1
  shift
  "$@" >"$log" 2>&1 &
  pids+=($!)
}

# foreground CMD... is killed with the script; a plain command would hold up the
# traps until it ends.
foreground() {
  "$@" &
  local pid=$! status=0
  pids+=("$pid")
  wait "$pid" || status=$?
  unset 'pids[-1]'
  return "$status"
}

lbd=${LBD:-}
if [ -z "$lbd" ]; then
  echo "building lbd"
  foreground env CGO_ENABLED=0 "${GO:-go}" build -trimpath -o "$work/lbd" ./cmd/lbd
  lbd=$work/lbd
fi

# await SECONDS WHAT CMD... tries until the command succeeds.
await() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" 2>/dev/null; do
    [ "$SECONDS" -lt "$deadline" ] || return 1
    for pid in "${pids[@]}"; do
      kill -0 "$pid" 2>/dev/null || die "$what ended by itself: $(tail -n 3 "$work"/*.log)"
    done
    sleep 0.1
  done
}

# Conditions for await.
# shellcheck disable=SC2317
six() { [ "$(grep -c '^http' "$1")" -eq 6 ]; }
# shellcheck disable=SC2317
address() { grep '"message":"started"' "$1" | grep -o '"listen":"[^"]*"' | cut -d '"' -f 4 | grep . >"$2"; }
# shellcheck disable=SC2317
healthy() { "$lbd" health --url "http://$1/ready" >/dev/null; }

# Round robin holds nothing back; what knows the queues may.
declare -A admission=([baseline]=false [managed]=true)
declare -A url
for env in baseline managed; do
  background "$work/$env-sim.log" "$lbd" sim --layout seed --listen 127.0.0.1:0
  await 20 "lbd sim" six "$work/$env-sim.log" || die "the simulated replicas of $env did not start"
  background "$work/$env.log" "$lbd" --listen 127.0.0.1:0 --admin-listen off --log-format json \
    --strategy "${strategy[$env]}" --admission="${admission[$env]}" --endpoints "$(cut -d ' ' -f 1 "$work/$env-sim.log" | paste -sd, -)"
  await 20 lbd address "$work/$env.log" "$work/$env.addr" || die "the lbd of $env did not start"
  url[$env]=http://$(cat "$work/$env.addr")
  await 20 lbd healthy "$(cat "$work/$env.addr")" || die "the lbd of $env is not ready"
  echo "$env: ${strategy[$env]}, six simulated replicas, ${url[$env]}"
done
sleep 2 # all six replicas polled

stamp=$(date -u +%Y%m%dT%H%M%SZ)
declare -A out
for env in baseline managed; do
  out[$env]=results/$env/lbd-bench_simulated_$stamp
  mkdir -p "${out[$env]}"
done
each=$((seconds + warmup))
echo "$repeats rounds of $each s to each environment, $rate requests/s: about $((repeats * 2 * (each + 4) / 60 + 1)) minutes"
order=(baseline managed)
failed=0
for round in $(seq "$repeats"); do
  for env in "${order[@]}"; do
    echo "round $round: $env"
    status=0
    foreground "$lbd" bench --target "${url[$env]}" --rate "$rate" "${lengths[@]}" --seed "$round" --duration "${each}s" --warmup "${warmup}s" \
      --output "${out[$env]}/seed-$round.json" --quiet || status=$?
    # 3: measured, but not to be trusted; the report says so and why.
    [ "$status" -eq 0 ] || [ "$status" -eq 3 ] || die "lbd bench failed"
    [ "$status" -eq 0 ] || failed=3
  done
  order=("${order[1]}" "${order[0]}")
done

echo
status=0
foreground "$lbd" report "${out[baseline]}" "${out[managed]}" --note "$note" --html results/compare.html --json results/compare.json 2>"$work/report.err" || status=$?
cat "$work/report.err" >&2
[ "$status" -eq 0 ] || [ "$status" -eq 3 ] || exit "$status"
echo
echo "$note"
echo "open $PWD/results/compare.html"
exit "$((status > failed ? status : failed))"
