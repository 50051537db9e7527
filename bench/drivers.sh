# shellcheck shell=bash
# What the drivers of other load generators share; they source it, it does nothing
# by itself. See bench/README.md for the variables.
# shellcheck disable=SC2034 # what is set here, the drivers use

die() {
  echo "$(basename "$0"): $1" >&2
  exit "${2:-1}"
}

# arguments ARGS...: sets env, url, model, concurrency, requests.
arguments() {
  case ${1:-} in
  -h | --help)
    sed -n '2,/^[^#]/{/^#/{s/^# \{0,1\}//;p}}' "$0"
    exit 0
    ;;
  esac
  [ $# -eq 4 ] || die "want ENV MODEL CONCURRENCY REQUESTS; see --help"
  env=$1 model=$2 concurrency=$3 requests=$4
  case $env in
  baseline) url=http://localhost:8080 ;;
  managed) url=http://localhost:8081 ;;
  http://* | https://*) 
    url=${env%/} env=${env#*://}
    env=${env%%/*}
    env=${env//[^A-Za-z0-9.-]/_}
    ;;
  *) die "environment \"$env\"; want baseline, managed or a URL" ;;
  esac
  local n
  for n in "$concurrency" "$requests"; do
    [[ $n =~ ^[1-9][0-9]*$ ]] || die "\"$n\"; want a whole number above 0"
  done
  input=${INPUT_TOKENS:-512} output=${OUTPUT_TOKENS:-128} seed=${SEED:-1}
  here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  cache=${LBD_BENCH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lbd-bench}
}

# need COMMAND WHY
need() {
  command -v "$1" >/dev/null || die "no $1; $2"
}

# target: the server answers and serves the model.
target() {
  need curl "it asks the server for its models"
  local models
  models=$(curl -fsS -m 10 "$url/v1/models") || die "nothing answers at $url/v1/models; start the environment first" 2
  grep -qF "\"$model\"" <<<"$models" || die "$url does not serve \"$model\"; it serves: $models"
}

# python TOOL VERSION PACKAGE...: sets python to that of a virtual environment with
# the packages. It is made once; LBD_BENCH_VENV is used as it is.
python() {
  local tool=$1 version=$2 base=${PYTHON:-python3}
  shift 2
  local venv=${LBD_BENCH_VENV:-$cache/$tool-$version}
  bin=$venv/bin python=$venv/bin/python
  if [ -n "${LBD_BENCH_VENV:-}" ]; then
    [ -x "$python" ] || die "LBD_BENCH_VENV: no $python"
    return
  fi
  [ ! -e "$venv/.complete" ] || return 0
  need "$base" "set PYTHON to a Python 3.10, 3.11 or 3.12"
  "$base" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' ||
    die "$base is $("$base" -V 2>&1); want 3.10 to 3.12, set PYTHON"
  echo "installing $tool $version into $venv (once)" >&2
  # What an interrupted installation has left is no environment.
  rm -rf "$venv"
  mkdir -p "$cache"
  "$base" -m venv "$venv" || die "cannot make a virtual environment; on Debian install python3-venv" 2
  "$python" -m pip install --quiet --disable-pip-version-check "$@" >&2 || die "cannot install $tool $version" 2
  touch "$venv/.complete"
}

# tokenizer TOOL: sets tokenizer to what the tool gets. LBD_BENCH_TOKENIZER is a local
# directory, or "sim" for a small one that is made here and needs no network.
tokenizer() {
  tokenizer=${LBD_BENCH_TOKENIZER:-$model}
  if [ "$tokenizer" = sim ]; then
    tokenizer=$cache/tokenizer-sim-$1 # a transformers does not read what a newer one wrote
    [ -e "$tokenizer/tokenizer_config.json" ] || "$python" "$here/tokenizer.py" "$tokenizer" || die "cannot make the tokenizer" 2
  fi
  if [ -d "$tokenizer" ]; then
    # aiperf takes these for a reason to look into its cache only, not at a directory.
    [ "$1" = aiperf ] || export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1
  elif [ -n "${LBD_BENCH_TOKENIZER:-}" ]; then
    die "LBD_BENCH_TOKENIZER: no directory $tokenizer"
  fi
}

# directory TOOL: makes and sets out, RESULTS/ENV/TOOL_MODEL_TIME.
directory() {
  local base
  base=${RESULTS:-results}/$env/$1_${model//[^A-Za-z0-9.-]/_}_$(date +%Y%m%d-%H%M%S)
  mkdir -p "$(dirname "$base")"
  out=$base
  for n in 2 3 4 5 6 7 8 9; do
    mkdir "$out" 2>/dev/null && break
    out=$base-$n
  done
  [ -d "$out" ] || die "cannot make $base" 2
  out=$(cd "$out" && pwd)
}

# finish TOOL: converts, if the tool writes other files, and says where all is.
finish() {
  if [ "$1" != genai-perf ]; then
    CONCURRENCY=$concurrency "$python" "$here/convert.py" "$1" "$out" || die "cannot convert the files of $1 in $out" 3
  fi
  echo "files: $out"
}
