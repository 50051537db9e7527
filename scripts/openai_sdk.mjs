// Drive an OpenAI-compatible server with OpenAI's own client for Node.
//
// Usage: node openai_sdk.mjs BASE_URL METRICS_URL
//
// Every check says what it saw; the exit code is the number of failed checks.

import OpenAI from "openai";
import { VERSION } from "openai/version";

const [base, metricsURL] = process.argv.slice(2);
const client = new OpenAI({ baseURL: base, apiKey: "sk-test", timeout: 60_000, maxRetries: 0 });
let failed = 0;

function check(name, ok, saw = "") {
  failed += ok ? 0 : 1;
  console.log(`${ok ? "ok  " : "FAIL"} ${name}${saw === "" ? "" : ": " + JSON.stringify(saw)}`);
}

const metrics = async () => (await (await fetch(metricsURL)).text()).split("\n");

async function metric(series) {
  const line = (await metrics()).find((l) => l.startsWith(series + " "));
  return line ? Number(line.slice(line.lastIndexOf(" ") + 1)) : 0;
}

async function reaches(series, want) {
  for (let i = 0; i < 100; i++) {
    if ((await metric(series)) === want) return true;
    await new Promise((r) => setTimeout(r, 50));
  }
  return false;
}

const models = (await client.models.list()).data.map((m) => m.id);
check("models.list", models.length >= 1, models);
const model = models[0];
check("models.retrieve", (await client.models.retrieve(model)).id === model);

const messages = [{ role: "user", content: "Say something." }];
const { data: chat, response } = await client.chat.completions
  .create({ model, messages, max_tokens: 12 }).withResponse();
check("chat", chat.usage.completion_tokens === 12 && chat.choices[0].finish_reason === "length", chat.usage);
check("chat headers", response.headers.has("x-lbd-replica"), response.headers.get("x-lbd-replica"));

let chunks = 0, usage = null;
for await (const chunk of await client.chat.completions.create({
  model, messages, max_tokens: 20, stream: true, stream_options: { include_usage: true },
})) {
  usage = chunk.usage ?? usage;
  chunks += chunk.choices.filter((c) => c.delta.content).length;
}
check("chat stream", chunks > 0 && usage?.completion_tokens === 20, `${chunks} content chunks`);

let text = "";
for await (const chunk of await client.completions.create({ model, prompt: "Once upon a time", max_tokens: 7, stream: true }))
  text += chunk.choices[0]?.text ?? "";
check("completions stream", text.length > 0, text);

const vectors = await client.embeddings.create({ model, input: ["one", "two"] }); // the client asks for base64
check("embeddings", vectors.data.length === 2 && vectors.data[0].embedding.length > 0, vectors.data[0].embedding.length);

try {
  await client.chat.completions.create({ model: "no-such-model", messages });
  check("unknown model", false, "no error");
} catch (e) {
  check("unknown model", e instanceof OpenAI.NotFoundError && e.code === "model_not_found" && e.param === "model", e.message);
}
try {
  await client.chat.completions.create({ model, messages, max_tokens: -1 });
  check("replica's own error", false, "no error");
} catch (e) {
  check("replica's own error", e instanceof OpenAI.BadRequestError, e.message);
}

// A client leaves in each state of a request: mid-stream, and before the first byte.
const gone = `lbd_client_disconnects_total{model="${model}"}`;
const long = { model, messages, max_tokens: 4000, ignore_eos: true };
let before = await metric(gone);
const stream = await client.chat.completions.create({ ...long, stream: true });
for await (const _ of stream) break; // leaving the loop aborts stream.controller
check("abort of a stream reaches lbd", await reaches(gone, before + 1));

before = await metric(gone);
const abort = new AbortController();
setTimeout(() => abort.abort(), 200);
try {
  await client.chat.completions.create(long, { signal: abort.signal });
  check("abort of an answer", false, "no error");
} catch (e) {
  check("abort of an answer", e instanceof OpenAI.APIUserAbortError, e.message);
}
check("abort of an answer reaches lbd", await reaches(gone, before + 1));
const busy = (await metrics()).filter((l) => l.startsWith("lbd_inflight_requests{") && !l.endsWith(" 0"));
check("own load is zero again", busy.length === 0, busy);

const errors = (await Promise.allSettled(
  Array.from({ length: 32 }, () => client.chat.completions.create({ model, messages, max_tokens: 5 }))))
  .filter((r) => r.status === "rejected").map((r) => String(r.reason));
check("32 at once", errors.length === 0, errors);
console.log(`openai ${VERSION} on Node ${process.version}: ${failed} checks failed`);
process.exit(failed);
