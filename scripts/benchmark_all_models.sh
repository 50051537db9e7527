#!/usr/bin/env bash
# Measures every model of a running environment with lbd's own client, one after the
# other.
set -euo pipefail
# shellcheck source=scripts/environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<'END'
Usage: scripts/benchmark_all_models.sh ENV [CONCURRENCY] [REQUESTS]

Loads each model of ENV, which is baseline, managed, shared-gpu or sim, with
CONCURRENCY (default 32) users until REQUESTS (default 20 for each user) are done,
after a warm-up of one request for each user. Results go to
results/ENV/lbd-bench_MODEL_TIME/; those of sim to results/sim/baseline and
results/sim/managed. environment_TIME.txt there says what was measured.

  INPUT_TOKENS, OUTPUT_TOKENS  lengths, as lbd bench takes them (default 512 and 128)
  SEED                         default 1: the same requests every time
  LBD_BENCH_API_KEY            key, where lbd asks clients for one
  LBD                          the lbd program to measure with (default: ./lbd, which
                               is built if need be)
END
}

case ${1:-} in
  -h | --help) usage; exit ;;
  '') usage >&2; exit 1 ;;
  -*) fail "unknown flag $1" "scripts/benchmark_all_models.sh --help" ;;
esac
[ $# -le 3 ] || fail "$# arguments; want ENV [CONCURRENCY] [REQUESTS]"
env=$1
known "$env"
concurrency=${2:-32}
[[ $concurrency =~ ^[1-9][0-9]*$ ]] || fail "concurrency \"$concurrency\"; want a number from 1"
requests=${3:-$((20 * concurrency))}
[[ $requests =~ ^[1-9][0-9]*$ ]] || fail "requests \"$requests\"; want a number from 1"
need_curl

lbd=${LBD:-$root/lbd}
if [ ! -x "$lbd" ]; then
  [ -z "${LBD:-}" ] || fail "LBD=$LBD is no program"
  command -v go >/dev/null || fail "there is no ./lbd and no Go to build it" \
    "copy it out of the image: docker create --name lbd-copy lbd:local && docker cp lbd-copy:/lbd . && docker rm lbd-copy"
  step "building lbd"
  make -C "$root" --quiet build
fi

# describe writes down what is measured: images with their digests, commands, GPUs.
describe() {
  echo "environment: $env, $(date -u +%FT%TZ)"
  echo "client: $("$lbd" version 2>/dev/null | head -n 1), concurrency $concurrency, $requests requests for each model"
  echo "commit: $(git -C "$root" rev-parse HEAD 2>/dev/null || echo unknown)"
  uname -srm
  nvidia-smi --query-gpu=index,name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo "no GPU"
  command -v docker >/dev/null || return 0
  local id image
  for id in $(containers "$env" 2>/dev/null); do
    image=$(docker inspect --format '{{.Image}}' "$id")
    docker inspect --format '{{.Name}}: {{.Config.Image}} {{json .Config.Cmd}}' "$id"
    echo "  $image $(docker image inspect --format '{{join .RepoDigests " "}}' "$image" 2>/dev/null)"
  done
}

failed=0
# measure NAME PORT RESULTS loads every model behind one lbd.
measure() {
  local name=$1 port=$2 results=$3 model replicas healthy served target
  target=${name%-lb}
  served=$(models "$port")
  [ -n "$served" ] || fail "no lbd answers on port $port, or it serves nothing yet" "scripts/deploy.sh $env, then scripts/test_env.sh $env"
  while read -r model replicas healthy; do
    [ "$replicas" = "$healthy" ] || fail "$healthy of $replicas replicas of $model are healthy: the figures would be of another environment" \
      "scripts/test_env.sh $env"
  done <<<"$served"
  mkdir -p "$results/$target"
  describe >"$results/$target/environment_$(date +%Y%m%d-%H%M%S).txt"
  # lbd bench knows baseline and managed by name, others by address.
  local where=(--env "$target")
  if [ "$target" = shared-gpu ]; then
    where=(--env "http://localhost:$port")
    results=$results/$target
  fi
  while read -r model _; do
    step "$name: $model, $concurrency users, $requests requests"
    "$lbd" bench "${where[@]}" --model "$model" --concurrency "$concurrency" --requests "$((requests + concurrency))" \
      --warmup-requests "$concurrency" --input-tokens "${INPUT_TOKENS:-512}" --output-tokens "${OUTPUT_TOKENS:-128}" \
      --seed "${SEED:-1}" --results "$results" </dev/null || failed=1
  done <<<"$served"
}

while read -r name port; do
  if [ "$env" = sim ]; then
    measure "$name" "$port" "$root/results/sim" </dev/null
  else
    measure "$name" "$port" "$root/results" </dev/null
  fi
done < <(lbs "$env")
[ $failed -eq 0 ] || { echo "a measurement failed its own checks; see above" >&2; exit 3; }
if [ "$env" = sim ]; then
  echo "compare:  ./lbd report results/sim/baseline results/sim/managed"
else
  echo "when both were measured:  ./lbd report results/baseline results/managed"
fi
