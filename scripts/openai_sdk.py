"""Drive an OpenAI-compatible server with OpenAI's own Python client.

Usage: openai_sdk.py BASE_URL METRICS_URL

Every check says what it saw; the exit code is the number of failed checks.
"""

import sys
import threading
import time
import urllib.request

import openai

base, metrics_url = sys.argv[1], sys.argv[2]
client = openai.OpenAI(base_url=base, api_key="sk-test", timeout=60, max_retries=0)
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


models = [m.id for m in client.models.list()]
check("models.list", len(models) >= 1, models)
model = models[0]
check("models.retrieve", client.models.retrieve(model).id == model)

messages = [{"role": "user", "content": "Say something."}]
r = client.chat.completions.create(model=model, messages=messages, max_tokens=12)
check("chat", r.usage.completion_tokens == 12 and r.choices[0].finish_reason == "length", r.usage)
check("chat headers", client.chat.completions.with_raw_response.create(
    model=model, messages=messages, max_tokens=1).headers.get("x-lbd-replica"))

chunks, usage = [], None
for chunk in client.chat.completions.create(
        model=model, messages=messages, max_tokens=20, stream=True, stream_options={"include_usage": True}):
    usage = chunk.usage or usage
    chunks += [c.delta.content for c in chunk.choices if c.delta.content]
check("chat stream", len(chunks) > 0 and usage and usage.completion_tokens == 20, f"{len(chunks)} content chunks")

r = client.completions.create(model=model, prompt="Once upon a time", max_tokens=7)
check("completions", r.usage.completion_tokens == 7)
text = "".join(c.choices[0].text for c in client.completions.create(
    model=model, prompt="Once upon a time", max_tokens=7, stream=True))
check("completions stream", len(text) > 0, repr(text))

r = client.embeddings.create(model=model, input=["one", "two"], encoding_format="float")
check("embeddings", len(r.data) == 2 and len(r.data[0].embedding) > 0, len(r.data[0].embedding))

try:
    client.chat.completions.create(model="no-such-model", messages=messages)
    check("unknown model", False, "no error")
except openai.NotFoundError as e:
    check("unknown model", e.code == "model_not_found" and e.param == "model", e.message)
try:
    client.chat.completions.create(model=model, messages=messages, max_tokens=-1)
    check("replica's own error", False, "no error")
except openai.BadRequestError as e:
    check("replica's own error", True, e.message)

series = f'lbd_client_disconnects_total{{model="{model}"}}'
before = metric(series)
stream = client.chat.completions.create(
    model=model, messages=messages, max_tokens=4000, stream=True, extra_body={"ignore_eos": True})
next(iter(stream))
stream.close()
for _ in range(100):
    if metric(series) > before:
        break
    time.sleep(0.05)
check("abort reaches lbd", metric(series) == before + 1)
inflight = [m for m in urllib.request.urlopen(metrics_url).read().decode().splitlines()
            if m.startswith("lbd_inflight_requests{")]
check("own load is zero again", all(m.endswith(" 0") for m in inflight), inflight)

errors = []


def worker():
    try:
        client.chat.completions.create(model=model, messages=messages, max_tokens=5)
    except openai.OpenAIError as e:
        errors.append(e)


threads = [threading.Thread(target=worker) for _ in range(32)]
for t in threads:
    t.start()
for t in threads:
    t.join()
check("32 at once", not errors, errors or "")
print(f"openai {openai.__version__}: {failed} checks failed")
sys.exit(failed)
