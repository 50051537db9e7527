package cors

import (
	"bytes"
	"fmt"
	"net/url"
	"strings"
)

// Words that may stand for origins, alone.
const (
	Any  = "*"
	None = "none"
)

// Policy is immutable. A nil Policy has no say.
type Policy struct {
	any     bool
	origins map[string]bool
}

// New returns the policy of a list of origins, nil for an empty one.
func New(origins []string) (*Policy, error) {
	if len(origins) == 0 {
		return nil, nil
	}
	p := &Policy{origins: map[string]bool{}}
	for _, o := range origins {
		switch {
		case (o == Any || o == None) && len(origins) > 1:
			return nil, fmt.Errorf("%q stands beside other origins; want it alone", o)
		case o == Any:
			p.any = true
		case o == None:
		default:
			if err := CheckOrigin(o); err != nil {
				return nil, err
			}
			p.origins[o] = true
		}
	}
	return p, nil
}

// CheckOrigin takes an origin as browsers write it: scheme and host in lower case,
// no default port, no path. Anything else would never be equal to what they send.
func CheckOrigin(o string) error {
	u, err := url.Parse(o)
	bad := err != nil || u.Scheme == "" || u.Host == "" || u.Scheme+"://"+u.Host != o || strings.ToLower(o) != o ||
		u.Scheme == "http" && u.Port() == "80" || u.Scheme == "https" && u.Port() == "443" || strings.Contains(u.Host, "*") ||
		strings.ContainsFunc(o, func(r rune) bool { return r <= ' ' || r >= 0x7f })
	if bad {
		return fmt.Errorf("%q is not an origin; want one as browsers send it, such as https://chat.example.org or http://localhost:3000, or * or none", o)
	}
	return nil
}

// Allow returns the value of Access-Control-Allow-Origin for a request with this
// Origin, nil for none. vary says that the answer depends on Origin and that the
// response needs Vary: Origin, also when it is not allowed.
func (p *Policy) Allow(origin []byte) (value []byte, vary bool) {
	switch {
	case p == nil:
		return nil, false
	case p.any:
		if len(origin) == 0 {
			return nil, false
		}
		return anyValue, false
	case len(p.origins) == 0:
		return nil, false
	case p.origins[string(origin)]:
		return origin, true
	}
	return nil, true
}

var anyValue = []byte(Any)

// Preflight says whether a request is a browser's question whether it may send
// another one: OPTIONS with both fields.
func Preflight(method, origin, requestMethod []byte) bool {
	return string(method) == "OPTIONS" && len(origin) > 0 && len(requestMethod) > 0
}

// Answers to a preflight, beside Access-Control-Allow-Origin, status 204. What lbd
// relays takes these methods; a page may send any header field: * would not cover
// Authorization, so what was asked for is repeated, if it is a list of names.
const (
	Methods = "GET, HEAD, POST, PUT, PATCH, DELETE"
	// MaxAge is in seconds; Chromium heeds at most two hours.
	MaxAge = "7200"
	// Expose lets pages read what helps a person who reports a problem, and when to
	// try again.
	Expose = "X-Request-Id, X-Lbd-Replica, X-Lbd-Strategy, Retry-After"
)

// maxRequestHeaders bounds what is repeated.
const maxRequestHeaders = 1024

// Headers returns the value of Access-Control-Allow-Headers for the field
// Access-Control-Request-Headers, nil for none.
func Headers(asked []byte) []byte {
	if len(asked) == 0 || len(asked) > maxRequestHeaders {
		return nil
	}
	for _, c := range asked {
		if !isTokenByte(c) && c != ',' && c != ' ' {
			return nil
		}
	}
	return asked
}

// isTokenByte is tchar of RFC 9110 section 5.6.2.
func isTokenByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// Owns says whether a response field of a replica is lbd's business and dropped.
func (p *Policy) Owns(name []byte) bool {
	const prefix = "Access-Control-"
	return p != nil && len(name) > len(prefix) && bytes.EqualFold(name[:len(prefix)], []byte(prefix))
}
