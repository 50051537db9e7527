// Package keys is access control by API key: who a client is, which models it may
// use and how much of them.
//
// # The file
//
// One key is one line: a name, the SHA-256 of the key, and limits where there are
// any. The name, never the key, appears in logs and metrics.
//
//	# name  hash               limits
//	alice   sha256:5e88489...  models=llama-8b,Qwen/* max_in_flight=8
//	batch   sha256:9f86d08...  requests_per_minute=600 tokens_per_minute=2000000
//
// A model is meant by any of its names; a * at the end stands for any ending. Two
// lines of one name are one client with two keys, as while a key is replaced; they
// share the limits, which must be the same in both.
//
// # Why SHA-256 and not bcrypt
//
// A slow hash protects what people can think of. A key of [Generate] has 256
// random bits: guessing is hopeless at any speed, so the hash needs no salt and no
// cost, while bcrypt would cost tens of milliseconds of CPU per request, which
// anybody could make lbd spend. Keys shorter than [MinLength] are refused, because
// for them this would not hold. Since only the hash of what a client sends is
// looked up, the time of the look-up tells nothing of a key: whoever learned a hash
// in part or whole could not turn it into the key. The hash itself is compared in
// constant time nevertheless.
//
// # Limits
//
// Requests and tokens per minute are token buckets that hold one minute's worth: a
// client that was quiet may send that much at once. A request is let in if the
// bucket holds its prompt, estimated from its bytes; when it ends, the bucket is
// charged what the replica reported in usage, or an estimate. So a client can
// overdraw by what its running requests generate, and pays before the next is let
// in. Refused requests are not charged.
//
// Invariants: Identify, Begin and End take no lock and allocate nothing; every
// Begin that succeeds is ended once; a reload keeps what is charged and in flight
// under a name, and does not touch running requests.
//
//	ks := keys.New()
//	err := ks.Set(entries)
//	k, refused := ks.Identify(&presented)
//	grant, refused := k.Begin(time.Now(), keys.Estimate(len(prompt)))
//	defer grant.End(time.Now(), used)
package keys
