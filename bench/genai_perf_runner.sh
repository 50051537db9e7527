#!/usr/bin/env bash
# genai_perf_runner.sh ENV MODEL CONCURRENCY REQUESTS
#
# Loads an environment with genai-perf 0.0.16. ENV is baseline (localhost:8080),
# managed (localhost:8081) or a URL. Files go to results/ENV/genai-perf_MODEL_TIME/:
# profile_export.json and profile_export.csv, and all that genai-perf writes.
#
# genai-perf runs perf_analyzer, which PyPI does not have: it comes with NVIDIA's
# container nvcr.io/nvidia/tritonserver:*-py3-sdk. Run this there, or put the binary
# into PATH. aiperf_runner.sh drives its successor, which needs nothing else.
#
# Variables: INPUT_TOKENS (512), OUTPUT_TOKENS (128), SEED (1), RESULTS (results),
# LBD_BENCH_TOKENIZER (a directory, or sim), LBD_BENCH_VENV (a virtual environment
# with genai-perf), LBD_BENCH_CACHE (~/.cache/lbd-bench), PYTHON (python3).
set -euo pipefail
# shellcheck source=bench/drivers.sh
. "$(dirname "$0")/drivers.sh"
arguments "$@"
need perf_analyzer "genai-perf runs it, and it is in no Python package; see --help, or use aiperf_runner.sh"
target
python genai-perf 0.0.16 genai-perf==0.0.16
tokenizer genai-perf
directory genai-perf

"$bin/genai-perf" profile -m "$model" --endpoint-type chat --endpoint v1/chat/completions --url "$url" --streaming --tokenizer "$tokenizer" \
  --synthetic-input-tokens-mean "$input" --synthetic-input-tokens-stddev 0 --output-tokens-mean "$output" --output-tokens-stddev 0 \
  --extra-inputs "max_tokens:$output" --extra-inputs "min_tokens:$output" --extra-inputs ignore_eos:true \
  --concurrency "$concurrency" --request-count "$requests" --warmup-request-count "$concurrency" --random-seed "$seed" \
  --artifact-dir "$out/artifacts" --profile-export-file profile_export.json

find "$out/artifacts" -name 'profile_export.json' -exec cp {} "$out/profile_export.json" \;
find "$out/artifacts" -name 'profile_export_genai_perf.csv' -exec cp {} "$out/profile_export.csv" \;
find "$out/artifacts" -name 'profile_export_genai_perf.json' -exec cp {} "$out/" \;
for file in "$out/profile_export.json" "$out/profile_export.csv"; do
  [ -s "$file" ] || die "genai-perf left no $(basename "$file") in $out/artifacts" 3
done
finish genai-perf
