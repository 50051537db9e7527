#!/usr/bin/env bash
# guidellm_runner.sh ENV MODEL CONCURRENCY REQUESTS
#
# Loads an environment with guidellm 0.7.3. ENV is baseline (localhost:8080), managed
# (localhost:8081) or a URL. Files go to results/ENV/guidellm_MODEL_TIME/:
# benchmarks.json as guidellm writes it, and profile_export.json and
# profile_export.csv in genai-perf's formats, converted.
#
# Variables: INPUT_TOKENS (512), OUTPUT_TOKENS (128), SEED (1), RESULTS (results),
# LBD_BENCH_TOKENIZER (a directory, or sim), LBD_BENCH_VENV (a virtual environment
# with guidellm), LBD_BENCH_CACHE (~/.cache/lbd-bench), PYTHON (python3).
set -euo pipefail
# shellcheck source=bench/drivers.sh
. "$(dirname "$0")/drivers.sh"
arguments "$@"
target
# h2: guidellm asks httpx for HTTP/2, which needs it though nothing here speaks it.
python guidellm 0.7.3 guidellm==0.7.3 'httpx[http2]'
tokenizer guidellm
directory guidellm

"$bin/guidellm" run --backend "kind=openai_http,target=$url,model=$model,request_format=/v1/chat/completions" \
  --profile "kind=concurrent,streams=$concurrency" --constraint "kind=max_requests,count=$requests" \
  --data "kind=synthetic_text,prompt_tokens=$input,output_tokens=$output" --tokenizer "kind=huggingface_auto,model=$tokenizer" \
  --seed "kind=static,value=$seed" --output "kind=json,path=$out/benchmarks.json" --disable-console-interactive
finish guidellm
