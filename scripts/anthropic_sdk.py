"""Drive a server of Anthropic's Messages API with Anthropic's own Python client.

Usage: anthropic_sdk.py BASE_URL METRICS_URL MODEL

Every check says what it saw; the exit code is the number of failed checks.
"""

import sys
import time
import urllib.request

import anthropic

base, metrics_url, model = sys.argv[1:]
client = anthropic.Anthropic(base_url=base, api_key="sk-test", timeout=60, max_retries=0)
failed = 0


def check(name, ok, saw=""):
    global failed
    failed += not ok
    print(f"{'ok  ' if ok else 'FAIL'} {name}{': ' + str(saw) if saw != '' else ''}")


def metric(series):
    for line in urllib.request.urlopen(metrics_url).read().decode().splitlines():
        if line.startswith(series + " "):
            return float(line.rsplit(" ", 1)[1])
    return 0.0


def rises(name, series, by):
    """Checks a series of the model's after a request: it is counted when the answer has ended."""
    series = f'{series}{{model="{model}"}}'
    before = metric(series)
    yield
    for _ in range(100):
        if metric(series) >= before + by:
            break
        time.sleep(0.05)
    check(name, metric(series) == before + by, metric(series) - before)


def refused(name, kind, error, code, call):
    try:
        call()
        check(name, False, "no error")
    except anthropic.APIStatusError as e:
        check(name, isinstance(e, kind) and e.type == error and e.error_code == code and e.request_id, f"{e.type} {e.error_code} {e.request_id}: {e.api_message}")


messages = [{"role": "user", "content": "Say something."}]
ask = {"model": model, "messages": messages}

count = rises("tokens of an answer are counted", "lbd_completion_tokens_total", 12)
next(count)
r = client.messages.create(max_tokens=12, **ask)
check("messages", r.usage.output_tokens == 12 and r.stop_reason == "max_tokens" and r.content[0].text, r.usage)
next(count, None)
check("messages headers", client.messages.with_raw_response.create(max_tokens=1, **ask).headers.get("x-lbd-replica"))

count = rises("tokens of a stream are counted", "lbd_completion_tokens_total", 20)
first = rises("its first token is seen", "lbd_time_to_first_token_seconds_count", 1)
next(count), next(first)
pieces = []
with client.messages.stream(max_tokens=20, **ask) as stream:
    pieces += stream.text_stream
    usage = stream.get_final_message().usage
check("messages stream", len(pieces) > 0 and usage.output_tokens == 20, f"{len(pieces)} pieces")
next(count, None), next(first, None)

n = client.messages.count_tokens(**ask).input_tokens
check("count_tokens", n == r.usage.input_tokens, n)

refused("unknown model", anthropic.NotFoundError, "not_found_error", "model_not_found",
        lambda: client.messages.create(model="no-such-model", max_tokens=1, messages=messages))
refused("unknown model, counting", anthropic.NotFoundError, "not_found_error", "model_not_found",
        lambda: client.messages.count_tokens(model="no-such-model", messages=messages))
refused("wrong method", anthropic.APIStatusError, "invalid_request_error", "method_not_allowed",
        lambda: client.get("/v1/messages", cast_to=object))
refused("body too large", anthropic.RequestTooLargeError, "request_too_large", "request_too_large",
        lambda: client.messages.create(max_tokens=1, model=model, messages=[{"role": "user", "content": "x" * (64 << 20)}]))
try:
    client.messages.create(max_tokens=0, **ask)
    check("replica's own error", False, "no error")
except anthropic.BadRequestError as e:
    check("replica's own error", True, e.api_message)

left = rises("abort reaches lbd", "lbd_client_disconnects_total", 1)
next(left)
stream = client.messages.create(max_tokens=4000, stream=True, **ask)
next(iter(stream))
stream.close()
next(left, None)
inflight = [m for m in urllib.request.urlopen(metrics_url).read().decode().splitlines()
            if m.startswith("lbd_inflight_requests{")]
check("own load is zero again", all(m.endswith(" 0") for m in inflight), inflight)
print(f"anthropic {anthropic.__version__}: {failed} checks failed")
sys.exit(failed)
