#!/usr/bin/env bash
# vllm_bench_runner.sh ENV MODEL CONCURRENCY REQUESTS
#
# Loads an environment with `vllm bench serve` of vLLM 0.19.0. ENV is baseline
# (localhost:8080), managed (localhost:8081) or a URL. Files go to
# results/ENV/vllm-bench_MODEL_TIME/: vllm_bench.json as vLLM writes it, and
# profile_export.json and profile_export.csv in genai-perf's formats, converted.
# The installation takes about 9 GB.
#
# Variables: INPUT_TOKENS (512), OUTPUT_TOKENS (128), SEED (1), RESULTS (results),
# LBD_BENCH_TOKENIZER (a directory, or sim), LBD_BENCH_VENV (a virtual environment
# with vllm), LBD_BENCH_CACHE (~/.cache/lbd-bench), PYTHON (python3).
set -euo pipefail
# shellcheck source=bench/drivers.sh
. "$(dirname "$0")/drivers.sh"
arguments "$@"
target
python vllm 0.19.0 vllm==0.19.0
tokenizer vllm-bench
directory vllm-bench

"$python" -m vllm.entrypoints.cli.main bench serve --backend openai-chat --base-url "$url" --endpoint /v1/chat/completions --model "$model" --tokenizer "$tokenizer" \
  --dataset-name random --random-input-len "$input" --random-output-len "$output" --num-prompts "$requests" --max-concurrency "$concurrency" \
  --ignore-eos --seed "$seed" --percentile-metrics ttft,tpot,itl,e2el --metric-percentiles 50,90,99 \
  --save-result --save-detailed --result-dir "$out" --result-filename vllm_bench.json
finish vllm-bench
