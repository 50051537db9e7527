#!/usr/bin/env bash
# aiperf_runner.sh ENV MODEL CONCURRENCY REQUESTS
#
# Loads an environment with aiperf 0.13.0, the successor of genai-perf. ENV is
# baseline (localhost:8080), managed (localhost:8081) or a URL. Files go to
# results/ENV/aiperf_MODEL_TIME/: profile_export.json and profile_export.csv in
# genai-perf's formats, converted, and all that aiperf writes in artifacts/.
#
# Variables: INPUT_TOKENS (512), OUTPUT_TOKENS (128), SEED (1), RESULTS (results),
# LBD_BENCH_TOKENIZER (a directory, or sim), LBD_BENCH_VENV (a virtual environment
# with aiperf), LBD_BENCH_CACHE (~/.cache/lbd-bench), PYTHON (python3).
set -euo pipefail
# shellcheck source=bench/drivers.sh
. "$(dirname "$0")/drivers.sh"
arguments "$@"
target
python aiperf 0.13.0 aiperf==0.13.0
tokenizer aiperf
directory aiperf

"$bin/aiperf" profile --model "$model" --url "$url" --endpoint-type chat --streaming --tokenizer "$tokenizer" \
  --concurrency "$concurrency" --request-count "$requests" --warmup-request-count "$concurrency" \
  --synthetic-input-tokens-mean "$input" --synthetic-input-tokens-stddev 0 --output-tokens-mean "$output" --output-tokens-stddev 0 \
  --extra-inputs "min_tokens:$output" --extra-inputs ignore_eos:true \
  --random-seed "$seed" --export-level raw --ui none --artifact-dir "$out/artifacts"
finish aiperf
