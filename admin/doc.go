// Package admin is the second listener: what operators see of the fleet and what
// they can do to it.
//
//	GET  /                              what is here
//	GET  /fleet                         the snapshot; ?format=table for people
//	POST /pick                          dry run: who would get this body, and why
//	GET  /replicas/{id}                 one replica of the snapshot
//	POST /replicas/{id}/drain, /undrain no new requests; new requests again
//	POST /replicas/{id}/{control path}  one of vLLM's control calls, passed through
//	POST /fleet/{control path}          the same at all replicas, or at ?model=NAME's
//	GET  /config                        the configuration in effect, secrets redacted
//	POST /reload                        200 {"reloaded":true}, the keys in "applied" and those in
//	                                    "needs_restart"; or 422 and why not
//	GET  /metrics                       lbd's own metrics
//	GET  /debug/                        pprof and runtime facts
//
// An {id} is host:port with the base path of the endpoint, as /fleet shows it;
// it may be percent-encoded, and must be where the base path could be taken for a
// part of the control path. Errors have OpenAI's shape, as on the main listener.
//
// # GET /fleet
//
// These names are relied on by scripts; null means unknown, never zero.
//
//	generation           grows with every change of the fleet
//	replicas[]           in the order of the configuration
//	  id, url, device, weight
//	  of                     the dns+ URL that it is an address of; null where it is listed itself
//	  state, reason, since   healthy, unknown or ejected; why, or that a healthy one
//	                         does not list what it is pinned to; since when
//	  ejections              since lbd started
//	  draining, available    available: gets new requests
//	  models[]               names it serves, null before they are known
//	  own.in_flight, own.pending           requests sent from here; without a first byte
//	  polled.waiting, .running             gauges of the replica, in requests
//	  polled.kv_cache_usage                0 to 1
//	  polled.foreign                       requests that others sent, smoothed
//	  polled.age_seconds, .stale           of the last poll; stale values do not count
//	models[]             sorted by name
//	  name, aliases[], strategy
//	  replicas[], available[]              ids
//	  held.waiting, .clients, .bytes       requests that wait here for a replica to have room
//	  held.oldest_seconds                  how long the one that waits longest has waited
//	  held.tokens, .tokens_per_second      their work, prompt tokens and twice the output
//	                                       tokens, and the pace at which it is taken up
//	unresolved[]         dns+ URLs under which no address is known
//
// # POST /pick
//
//	model, strategy, picked
//	replicas[]           those of the model
//	  id, candidate, why_not
//	  terms.in_flight, .pending, .foreign, .stale, .weight    as in /fleet
//	  terms.waiting      the polled gauge and what was sent since that poll and
//	                     has had no first byte: what strategies go by
//	  terms.running      the polled gauge
//	  strategy_terms     what the strategy itself goes by, for those that show it
//	                     (least-cost: milliseconds, tokens), null where unknown
//
// Where a request would be tried on replicas that are out of service, as all of its
// model's are, or the one that keeps the response it goes on from, strategy is
// last-resort and candidates are the likeliest of them. An error has the status that
// the proxy would answer. If the model is known, the fields above stand beside it.
// Nothing is reserved or sent, but last resorts are probed, as they would be for a
// request; a strategy that takes turns may pass one.
//
// # Control calls
//
// For one replica, its status, content type and body are the answer. For the
// fleet the answer is
//
//	{"results":[{"replica":ID,"status":200,"body":...,"duration_ms":12},
//	            {"replica":ID,"status":null,"error":"connection refused","duration_ms":1}]}
//
// with 200 if every replica answered 2xx, else 502, so that curl --fail notices. A
// body is JSON where the replica said so, else a string; more than 1 MiB of it is
// cut and "truncated" is true. Replicas that are drained or ejected are called as
// well: who sleeps must be woken. A call ends after 5 minutes or when its caller
// leaves.
//
// # Who may call
//
// Whoever shows the token, as Authorization: Bearer TOKEN or as the password of
// HTTP's Basic scheme, and the certificate of a client where TLS wants one. Without
// a token everybody who reaches the listener, so on any address but loopback it
// does not start without one of the two. Web pages are kept out: requests whose Host
// is a name this listener does not go by are refused (DNS rebinding), as are
// requests that change something and come from a page of another origin; no CORS
// header is ever sent.
//
// Invariants: a GET changes nothing; no body, key or token is ever logged, and the
// operator's token never reaches a replica; Stop leaves no handler and no call to a replica behind.
//
//	s := admin.New(admin.Options{Fleet: f, Explain: p.Explain, Reload: d.Reload, Log: log})
//	err := s.Start("127.0.0.1:9901")
//	defer s.Stop(ctx)
package admin
