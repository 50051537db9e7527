"""Writes genai-perf's formats from another tool's files: convert.py TOOL DIRECTORY

TOOL is aiperf, guidellm or vllm-bench; DIRECTORY has what the tool wrote, which
stays. Adds profile_export.json (raw requests, nanoseconds) and profile_export.csv
(summary, milliseconds). Standard library only.

Times and texts are the tool's. Where it does not say which part of the text came
when, the text is cut into as many parts as there are times; guidellm tells only
the first and the last. The prompts are there where the tool keeps them.
"""

import csv
import glob
import json
import math
import os
import sys


class Request:
    """One successful request; times in nanoseconds, prompt and output in tokens."""

    def __init__(self, start, times, end, text, payload, prompt, output):
        self.start, self.times, self.end = int(start), [int(t) for t in times], int(end)
        self.text, self.payload, self.prompt, self.output = text or "", flat(payload), prompt, output

    def raw(self):
        n = len(self.times)
        cuts = [len(self.text) * i // n for i in range(n + 1)]
        outputs = []
        for a, b in zip(cuts, cuts[1:]):
            delta = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": self.text[a:b]}}]}
            outputs.append({"response": "data: " + json.dumps(delta) + "\n\n"})
        return {
            "timestamp": self.start,
            "request_inputs": {"payload": json.dumps(self.payload)},
            "response_timestamps": self.times,
            "response_outputs": outputs,
        }


def flat(body):
    """The body with messages as plain text: genai-perf's reader knows no lists of parts."""
    for message in body.get("messages") or []:
        if isinstance(message.get("content"), list):
            message["content"] = "".join(part.get("text") or "" for part in message["content"])
    return body


def payload(model, text=""):
    return {"model": model, "messages": [{"role": "user", "content": text}], "stream": True}


def read_aiperf(directory):
    records = load_lines(newest(directory, "artifacts/**/profile_export.jsonl"))
    texts = {}
    for raw in load_lines(newest(directory, "artifacts/**/profile_export_raw.jsonl")):
        meta = raw["metadata"]
        texts[meta["x_request_id"]] = (raw_text(raw), raw.get("payload"))
    requests, failed, model = [], 0, ""
    for record in records:
        meta, metrics = record["metadata"], record.get("metrics") or {}
        if meta.get("benchmark_phase") != "profiling":
            continue
        if record.get("error") or meta.get("was_cancelled"):
            failed += 1
            continue
        start, end = meta["request_start_ns"], meta["request_end_ns"]
        first = start + value(metrics, "time_to_first_token") * 1e6
        times = [first]
        for gap in value(metrics, "inter_chunk_latency") or []:
            times.append(times[-1] + gap * 1e6)
        text, body = texts.get(meta["x_request_id"], ("", None))
        output = value(metrics, "usage_completion_tokens") or value(metrics, "output_sequence_length")
        prompt = value(metrics, "usage_prompt_tokens") or value(metrics, "input_sequence_length")
        requests.append(Request(start, times, end, text, body or payload(model), prompt, output))
    return requests, failed


def raw_text(raw):
    """The text of all events aiperf kept of a request."""
    text = []
    for response in raw.get("responses") or []:
        for packet in response.get("packets") or []:
            if packet.get("name") != "data" or not (packet.get("value") or "").startswith("{"):
                continue
            for choice in json.loads(packet["value"]).get("choices") or []:
                text.append((choice.get("delta") or {}).get("content") or "")
    return "".join(text)


def value(metrics, name):
    return (metrics.get(name) or {}).get("value")


def read_guidellm(directory):
    with open(os.path.join(directory, "benchmarks.json")) as f:
        benchmark = json.load(f)["benchmarks"][0]
    requests = []
    for r in benchmark["requests"]["successful"]:
        timings = r["info"]["timings"]
        first, last = timings["first_token_iteration"], timings["last_token_iteration"]
        if first is None:
            continue
        times = [first * 1e9] if last is None or last <= first else [first * 1e9, last * 1e9]
        body = json.loads(r.get("request_args") or "{}").get("body") or payload("")
        requests.append(
            Request(r["request_start_time"] * 1e9, times, r["request_end_time"] * 1e9, r["output"], body, r["prompt_tokens"], r["output_tokens"])
        )
    return requests, len(benchmark["requests"]["errored"])


def read_vllm(directory):
    with open(os.path.join(directory, "vllm_bench.json")) as f:
        result = json.load(f)
    # start_times are of a clock that began some time ago; only differences count.
    requests, failed = [], 0
    columns = ("start_times", "ttfts", "itls", "generated_texts", "input_lens", "output_lens", "errors")
    for start, ttft, itl, text, prompt, output, error in zip(*(result[c] for c in columns)):
        if error:
            failed += 1
            continue
        times = [(start + ttft) * 1e9]
        for gap in itl:
            times.append(times[-1] + gap * 1e9)
        requests.append(Request(start * 1e9, times, times[-1], text, payload(result["model_id"]), prompt, output))
    return requests, failed


def newest(directory, pattern):
    found = glob.glob(os.path.join(directory, pattern), recursive=True)
    if not found:
        sys.exit(f"convert.py: no {pattern} in {directory}")
    return max(found, key=os.path.getmtime)


def load_lines(path):
    with open(path) as f:
        return [json.loads(line) for line in f if line.strip()]


def statistics(requests):
    """genai-perf's metrics by its definitions."""
    tokens = [r for r in requests if r.output and r.output > 1 and r.times[-1] > r.times[0]]
    itl = [(r.times[-1] - r.times[0]) / (r.output - 1) / 1e6 for r in tokens]
    return [
        ("Time To First Token (ms)", [(r.times[0] - r.start) / 1e6 for r in requests]),
        ("Time To Second Token (ms)", [(r.times[1] - r.times[0]) / 1e6 for r in requests if len(r.times) > 2]),
        ("Request Latency (ms)", [(r.times[-1] - r.start) / 1e6 for r in requests]),
        ("Inter Token Latency (ms)", itl),
        ("Output Token Throughput Per User (tokens/sec/user)", [1000 / v for v in itl if v > 0]),
        ("Output Sequence Length (tokens)", [r.output for r in requests if r.output]),
        ("Input Sequence Length (tokens)", [r.prompt for r in requests if r.prompt]),
    ]


def percentile(ordered, q):
    at = q / 100 * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def write_csv(path, requests, seconds):
    columns = ["avg", "min", "max", "p99", "p95", "p90", "p75", "p50", "p25", "p10", "p5", "p1"]
    with open(path, "w", newline="") as f:
        out = csv.writer(f)
        out.writerow(["Metric"] + columns)
        for name, values in statistics(requests):
            if not values:
                continue
            values = sorted(values)
            row = {"avg": sum(values) / len(values), "min": values[0], "max": values[-1]}
            row.update({c: percentile(values, int(c[1:])) for c in columns[3:]})
            out.writerow([name] + [f"{row[c]:,.2f}" for c in columns])
        out.writerow([])
        out.writerow(["Metric", "Value"])
        out.writerow(["Output Token Throughput (tokens/sec)", f"{sum(r.output or 0 for r in requests) / seconds:,.2f}"])
        out.writerow(["Request Throughput (per sec)", f"{len(requests) / seconds:,.2f}"])
        out.writerow(["Request Count (count)", f"{len(requests):,.2f}"])


def main():
    tool, directory = sys.argv[1:]
    read = {"aiperf": read_aiperf, "guidellm": read_guidellm, "vllm-bench": read_vllm}[tool]
    requests, failed = read(directory)
    if not requests:
        sys.exit(f"convert.py: no successful request in {directory} ({failed} failed)")
    first, last = min(r.start for r in requests), max(r.end for r in requests)
    document = {
        "experiments": [
            {
                "experiment": {"mode": "concurrency", "value": int(os.environ.get("CONCURRENCY", "1"))},
                "requests": [r.raw() for r in requests],
                "window_boundaries": [first, last],
            }
        ],
        "version": f"converted from {tool}",
        "service_kind": "openai",
        "endpoint": "v1/chat/completions",
    }
    with open(os.path.join(directory, "profile_export.json"), "w") as f:
        json.dump(document, f)
    write_csv(os.path.join(directory, "profile_export.csv"), requests, (last - first) / 1e9)
    print(f"{len(requests)} requests converted, {failed} failed")


main()
