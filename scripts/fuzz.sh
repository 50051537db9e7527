#!/usr/bin/env bash
# Runs every fuzz target of the module for a while each.
#
#   scripts/fuzz.sh [TIME]        TIME as go test -fuzztime takes it, default 5s
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-5s}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# A worker that is busy with an input when the time is over reports "context
# deadline exceeded" as if it were a failure (golang/go issue 75804). A real
# finding always names the input it has written.
timed_out() {
  grep -q 'context deadline exceeded' "$log" && ! grep -q 'Failing input written' "$log"
}

targets=0
while read -r file; do
  dir=$(dirname "$file")
  mapfile -t found < <(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file")
  for target in "${found[@]}"; do
    echo "fuzz $dir $target"
    if ! go test -run='^$' -fuzz="^$target\$" -fuzztime="$time" -fuzzminimizetime=5x "$dir" </dev/null >"$log" 2>&1 && ! timed_out; then
      cat "$log"
      exit 1
    fi
    targets=$((targets + 1))
  done
done < <(grep -rl --include='*_test.go' '^func Fuzz' . | sort)
echo "$targets fuzz targets, nothing found"
[ "$targets" -gt 0 ]
