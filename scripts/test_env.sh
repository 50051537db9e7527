#!/usr/bin/env bash
# Asks a running environment whether it works: health, models, a streamed answer
# from every model, and requests reaching every replica.
set -euo pipefail
# shellcheck source=scripts/environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<'END'
Usage: scripts/test_env.sh ENV|PORT

ENV is baseline, managed, shared-gpu or sim; PORT is that of any lbd on this
machine. For each lbd: /health must say healthy, /v1/models must list every model,
each model must stream an answer to its end, and of sixteen requests at once to
each model every healthy replica must answer at least one. Where lbd asks clients
for a key, LBD_BENCH_API_KEY is it. Exits with 3 when a check fails.
END
}

[ $# -eq 1 ] || { usage >&2; exit 1; }
case $1 in
  -h | --help) usage; exit ;;
  -*) fail "unknown flag $1" "scripts/test_env.sh --help" ;;
esac
need_curl
if [[ $1 =~ ^[0-9]+$ ]]; then
  list="port $1"
else
  known "$1"
  list=$(lbs "$1")
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Headers come from a file: a command line is for all to see.
{
  echo 'Content-Type: application/json'
  [ -z "${LBD_BENCH_API_KEY:-}" ] || echo "Authorization: Bearer $LBD_BENCH_API_KEY"
} >"$work/headers"
failed=0
good() { printf '  ok    %s\n' "$*"; }
bad() {
  printf '  FAIL  %s\n' "$*"
  failed=1
}

# request MODEL STREAM TOKENS TEXT is a chat request.
request() {
  printf '{"model":"%s","stream":%s,"max_tokens":%d,"messages":[{"role":"user","content":"%s"}]}' "$@"
}

# send URL MODEL STREAM TOKENS TEXT FILE leaves head and body in FILE.head and FILE.
send() {
  request "$2" "$3" "$4" "$5" | curl -sN --max-time 120 -D "$6.head" -o "$6" -H @"$work/headers" \
    --data-binary @- "$1/v1/chat/completions"
}

# header NAME FILE prints a header of an answer.
header() { sed -n "s/^$1:[[:space:]]*//Ip" "$2.head" | tr -d '\r' | tail -n 1; }

# excerpt FILE is the beginning of an answer, on one line.
excerpt() { head -c 300 "$1" 2>/dev/null | tr -d '\n'; }

check_health() {
  local body
  if ! body=$(curl -s --max-time 5 "$url/health"); then
    bad "nothing answers on $url" && return 1
  fi
  case $body in
    *'"status":"healthy"'*) good "health: all replicas healthy" ;;
    *'"status":"degraded"'*) bad "health: degraded: $body" ;;
    *) bad "health: $body" && return 1 ;;
  esac
}

check_models() {
  local listed model
  listed=$(curl -s --max-time 5 -H @"$work/headers" "$url/v1/models")
  while read -r model _; do
    case $listed in
      *"\"id\":\"$model\""*) good "models: $model" ;;
      *) bad "models: $model is healthy but not in /v1/models" ;;
    esac
  done <<<"$served"
}

check_stream() {
  local model=$1 file=$work/stream type events
  if ! send "$url" "$model" true 16 "Count to ten." "$file"; then
    bad "stream of $model: broke off: $(excerpt "$file")" && return
  fi
  type=$(header content-type "$file")
  events=$(grep -c '^data: {' "$file" || true)
  if [[ $type != text/event-stream* ]]; then
    bad "stream of $model: $(head -n 1 "$file.head" | tr -d '\r'), $(excerpt "$file")"
  elif [ "$(grep '^data: ' "$file" | tail -n 1 | tr -d '\r')" != "data: [DONE]" ]; then
    bad "stream of $model: ends without [DONE] after $events events"
  elif [ "$(grep -c '"content":"[^"]' "$file" || true)" -eq 0 ]; then
    bad "stream of $model: $events events without a word"
  else
    good "stream: $model, $events events, from $(header x-lbd-replica "$file") by $(header x-lbd-strategy "$file")"
  fi
}

# check_spread MODEL HEALTHY: sixteen at once, so that a strategy that minds load
# has some to mind.
check_spread() {
  local model=$1 healthy=$2 i counts failures
  rm -f "$work"/spread.*
  for i in $(seq 16); do
    send "$url" "$model" false 32 "Question $i: why?" "$work/spread.$i" || true &
  done
  wait
  failures=$((16 - $(cat "$work"/spread.*.head 2>/dev/null | grep -c '^HTTP/1.1 200' || true)))
  counts=$(sed -n 's/^x-lbd-replica:[[:space:]]*//Ip' "$work"/spread.*.head | tr -d '\r' |
    sort | uniq -c | awk '{ printf "%s%s %d", sep, $2, $1; sep = ", " }')
  if [ "$failures" -gt 0 ]; then
    bad "spread: $failures of 16 requests for $model failed: $(excerpt "$work/spread.1")"
  elif [ "$(awk -F', ' '{ print NF }' <<<"$counts")" -ne "$healthy" ]; then
    bad "spread: $model has $healthy healthy replicas, requests reached: $counts"
  else
    good "spread: $model: $counts"
  fi
}

while read -r name port; do
  url=http://localhost:$port
  step "$name ($url)"
  check_health || continue
  served=$(models "$port")
  check_models
  while read -r model _ healthy; do
    [ -n "$model" ] || continue
    check_stream "$model" </dev/null
    check_spread "$model" "$healthy" </dev/null
  done <<<"$served"
done <<<"$list"
[ $failed -eq 0 ] || { echo "not all is well" >&2; exit 3; }
echo "all is well"
