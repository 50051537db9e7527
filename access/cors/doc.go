// Package cors says which web pages may call lbd from a browser (the CORS protocol
// of https://fetch.spec.whatwg.org/#http-cors-protocol).
//
// Without origins lbd has no say: it adds nothing and passes on what replicas
// answer. With origins it is the one that answers: preflights are answered here,
// without a key, as browsers send none with them, and the replicas' own
// Access-Control- fields are dropped, so that vLLM's default of allowing every page
// does not undo the setting. The origin none is no page at all: it only drops.
//
// Credentials of the browser (cookies, HTTP authentication) are never allowed. An
// API key that the page itself sends as Authorization is none in that sense.
//
// Invariant: what is sent for one request is decided without allocation and without
// copying a byte of the client's into a response, but for an origin that is in the
// list.
//
//	p, err := cors.New([]string{"https://chat.example.org"})
//	origin, vary := p.Allow(originField)
package cors
