// Package workload says what traffic to send: how requests arrive, how long they
// are, what they share and how conversations go on. A [Workload] is read from a
// JSON file or made from flags, and drawn from a seed:
//
//	w, err := workload.Read("bench/workloads/default.json")
//	load.Run(ctx, load.Options{Requests: w.Draw(models, seed), ...})
//
// Invariants: the same workload and the same seed give the same requests; what one
// property draws never moves what another draws, so two runs with other lengths
// still have the same arrivals; a file with a key that is not known, or twice, or
// with a value that cannot be meant is refused with its line.
//
// # The file
//
// Keys that are left out have the defaults given here. Times are strings like
// "30s", lengths are what [trace.ParseLengths] reads ("512", "100..2000",
// "lognormal:512,0.8,16..4096") or a whole number.
//
//	{
//	  "schema": "lbd-workload/1",   required
//	  "name": "default",            required; names the workload in results
//	  "description": "...",
//	  "arrival": {                  rate or concurrency is required, here or by flag
//	    "process": "poisson",       poisson, constant or gamma
//	    "burstiness": 1,            gamma only: its shape, as vllm bench has it; below 1 comes in bursts
//	    "rate": 8,                  conversations per second
//	    "concurrency": 32,          instead: so many users, each with the next conversation when one has ended
//	    "ramp": {"over": "30s", "from": 1, "shape": "linear"}
//	  },                            rate: from so many per second to rate, linear or exponential, then rate;
//	                                concurrency: the users start evenly over that time, from and shape do not apply
//	  "requests": 1000,             the end: so many requests, later turns included ...
//	  "duration": "2m",             ... or no request is started after this; one of both, here or by flag
//	  "warmup": "10s",              requests scheduled before this are sent and not measured
//	  "slo": {"ttft": "1s", "tpot": "50ms", "e2e": "30s"},
//	  "classes": [{                 required, at least one; a conversation is of one class
//	    "name": "chat",             required, different in each
//	    "weight": 1,                the class's part of the conversations
//	    "models": {"NAME": 1},      weights; default: --model, or all the target serves, equally
//	    "input_tokens": "512",      what the user says first, prefix not included
//	    "output_tokens": "128",
//	    "stream": true,
//	    "prefix": {"tenants": 20, "tokens": 1024, "skew": 0},
//	                                each conversation begins with the prefix of one of so many tenants;
//	                                the k-th is drawn in proportion to k^-skew (0: all alike)
//	    "turns": "1",               requests in a conversation, written as lengths are
//	    "later_input_tokens": "64", what the user says in later turns; default: input_tokens
//	    "think_time": "exponential:5s"
//	  }]                            before each later turn: "5s", "2s..8s" (uniform) or "exponential:5s" (mean); default 0s
//	}
package workload
