// Package affinity sends what belongs together to the same replica: requests of one session, whose prompt prefix is in the
// KV cache there, and requests about a stored response, which exists there and nowhere else.
//
// A session is what the client names with a header (X-Session-ID, say) or a field of the body (prompt_cache_key, user); which
// ones count is configuration, and none does unless it says so. A session has a home, and affinity is a preference for it: it
// wraps whatever strategy a model has, narrows the candidates to the home, and lets the strategy place the request there as it
// places any other. It yields, and the strategy chooses among all, when the home is saturated or cannot be had.
//
// A response (/v1/responses/{id}, previous_response_id) is state, and affinity to it is no preference: its replica is asked
// even while it drains, and if it is down the answer is that it is down, since everybody else would say that the response does
// not exist.
//
// # Where a session's home is
//
// With [ByStrategy] the strategy chooses it for the first request, by load and prefix, and a table remembers it. That is the
// better place, and it is known to this lbd only: behind several lbds a session has as many homes as lbds carry it.
//
// With [ByHash] the home is the replica with the largest weighted rendezvous hash of session and replica (Thaler and
// Ravishankar 1998). Nothing is remembered: all lbds in front of a fleet agree, as does one after a restart, as long as they call
// the replicas by the same URLs. A replica that leaves moves its own sessions only. The second largest hash takes what the
// largest cannot, so that they agree on that too. The price is that load has no say in the first placement.
//
// # When a home is saturated
//
// See [Homes] for the rule: bounded loads (Mirrokni, Thorup, Zadimoghaddam, SODA 2018), vLLM's queue and its KV cache.
//
// The invariant: memory is bounded by the configuration, whatever clients call their sessions, and nothing they call them is
// kept: tables hold 64-bit hashes under a random seed. A dump of the process still holds the seed, so whoever has one and a list of
// names can tell which of them were there; names and seed do not appear in logs, metrics or answers.
//
//	h := affinity.New(affinity.Options{Config: affinity.Config{Fields: []string{"user"}}, Snapshot: fleet.Snapshot})
//	picker := h.Wrap(strategy)
//	req.Session = h.Session(model, client, user)
package affinity
