package keys

import (
	"bytes"
)

// Presented is the key that a request carries. The zero value is none. Field is
// given every header field; the values are kept, not copied.
type Presented struct {
	bearer, apiKey []byte
	several        bool
}

const (
	authorization = "Authorization"
	xAPIKey       = "X-Api-Key" // Anthropic's SDKs
)

// Field notes a header field if it carries a key.
func (p *Presented) Field(name, value []byte) {
	switch len(name) {
	case len(authorization):
		if token, ok := bearerToken(value); ok && bytes.EqualFold(name, []byte(authorization)) {
			p.note(&p.bearer, token)
		}
	case len(xAPIKey):
		if bytes.EqualFold(name, []byte(xAPIKey)) {
			p.note(&p.apiKey, value)
		}
	}
}

// note takes a repeated field with another value for an attempt to be two clients
// at once: what stands behind lbd might go by the other one.
func (p *Presented) note(to *[]byte, value []byte) {
	p.several = p.several || *to != nil && !bytes.Equal(*to, value)
	*to = value
}

// IsCredential says whether a header field may carry a client's key and must not
// reach a replica once access is lbd's business.
func IsCredential(name []byte) bool {
	switch len(name) {
	case len(authorization):
		return bytes.EqualFold(name, []byte(authorization))
	case len(xAPIKey):
		return bytes.EqualFold(name, []byte(xAPIKey))
	}
	return false
}

// bearerToken reads "Bearer TOKEN" (RFC 6750 section 2.1; the scheme is
// case-insensitive by RFC 9110 section 11.1).
func bearerToken(value []byte) ([]byte, bool) {
	const scheme = "Bearer "
	if len(value) < len(scheme) || !bytes.EqualFold(value[:len(scheme)], []byte(scheme)) {
		return nil, false
	}
	return bytes.TrimLeft(value[len(scheme):], " "), true
}

// key returns what was sent, and nil for nothing. Both fields may be sent, with one
// key in both.
func (p *Presented) key() (key []byte, several bool) {
	if p.bearer == nil {
		return p.apiKey, p.several
	}
	return p.bearer, p.several || p.apiKey != nil && !bytes.Equal(p.apiKey, p.bearer)
}
