#!/usr/bin/env bash
# Runs every fuzz target of the module for a while each, and goes on behind a finding.
#
#   scripts/fuzz.sh [TIME]        TIME per target as go test -fuzztime takes it, default 5s
#   scripts/fuzz.sh total TIME    TIME for all together, building included: 90s, 20m, 1h
#
# An input that fails is kept where go test writes it, testdata/fuzz/TARGET of its
# package, and is a test case from then on; commit it with the repair. What the fuzzer
# has learnt stays in `go env GOCACHE` for the next run. Exit code 1: something was found.
set -euo pipefail
case ${1-} in
-h | --help)
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"
  exit 0
  ;;
esac
cd "$(dirname "$0")/.."

seconds() {
  case $1 in
    *[!0-9smh]* | '' | [smh]*) echo "time $1; want a number and s, m or h" >&2; exit 2 ;;
    *h) echo $((${1%h} * 3600)) ;;
    *m) echo $((${1%m} * 60)) ;;
    *) echo "${1%s}" ;;
  esac
}

time=${1:-5s} end=
if [ "$time" != total ] && ! [[ $time =~ ^[0-9]+x$|^([0-9.]+(h|m|s|ms))+$ ]]; then
  echo "time \"$time\"; want one such as 5s, 1m30s or 1000x, or total TIME" >&2
  exit 2
fi
if [ "$time" = total ]; then
  total=$(seconds "${2:-1h}")
  end=$((SECONDS + total))
fi

targets=() # DIR TARGET
while read -r file; do
  while read -r target; do
    targets+=("$(dirname "$file") $target")
  done < <(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file")
done < <(grep -rl --include='*_test.go' '^func Fuzz' . | sort)
if [ ${#targets[@]} -eq 0 ]; then
  echo "no fuzz targets" >&2
  exit 1
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT

# A worker that is busy with an input when the time is over reports "context
# deadline exceeded" as if it were a failure (golang/go issue 75804). A real
# finding always names the input it has written, or a seed.
timed_out() {
  grep -q 'context deadline exceeded' "$log" && ! grep -q 'Failing input written\|Failing input: \|failure while testing seed' "$log"
}

found=()
left=${#targets[@]}
for t in "${targets[@]}"; do
  read -r dir target <<<"$t"
  if [ -n "$end" ]; then
    # What building takes comes off the time of those behind.
    share=$(((end - SECONDS) / left))
    time=$((share > 1 ? share : 1))s
  fi
  left=$((left - 1))
  echo "fuzz $dir $target $time"
  if ! go test -run='^$' -fuzz="^$target\$" -fuzztime="$time" -fuzzminimizetime=5x "$dir" </dev/null >"$log" 2>&1 && ! timed_out; then
    cat "$log"
    found+=("$dir $target $(sed -n 's/.*Failing input written to //p' "$log")")
  fi
done

if [ ${#found[@]} -gt 0 ]; then
  echo "${#targets[@]} fuzz targets, findings:"
  printf '  %s\n' "${found[@]}"
  exit 1
fi
echo "${#targets[@]} fuzz targets, nothing found"
