package proxy

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"strconv"
	"sync/atomic"

	"lbd/access/forwarded"
	"lbd/access/keys"
	"lbd/balancer"
	"lbd/proxy/internal/inbound"
	"lbd/proxy/internal/relay"
)

const requestIDHeader = "X-Request-Id"

// requestHead is a client's request head as far as it is passed on.
type requestHead struct {
	method, target []byte
	fields         []relay.Field
	had            int    // fields that the client sent
	host           []byte // that the client asked for, with its port
	id             []byte // X-Request-Id, the client's or made here
	ownID          bool
	websocket      bool // the client wants to leave HTTP
	idBuf          [32]byte
}

// read takes over a request's head, from the bytes the client sent: names, order
// and repetitions stay.
func (h *requestHead) read(req *inbound.Request) *apiError {
	h.method, h.target = req.Method, originForm(req.Target)
	h.fields, h.id, h.host, h.websocket = append(h.fields[:0], req.Fields...), nil, nil, false
	h.had = len(h.fields)
	for i, f := range h.fields {
		switch len(f.Name) {
		case len(requestIDHeader):
			switch {
			case !relay.EqualFold(f.Name, "x-request-id"):
			case len(f.Value) == 0:
				h.fields[i].Name = nil // as if it were not there
			case h.id == nil:
				h.id = f.Value
			}
		case len("host"):
			if relay.EqualFold(f.Name, "host") {
				h.host = f.Value
			}
		case len("upgrade"):
			h.websocket = h.websocket || (relay.EqualFold(f.Name, "upgrade") && relay.EqualFold(f.Value, "websocket"))
		}
	}
	if a := authority(req.Target); a != nil {
		h.host = a
	}
	if err := h.dropHopByHop(); err != nil {
		return err
	}
	if h.ownID = h.id == nil; h.ownID {
		h.id = newRequestID(&h.idBuf)
	}
	return nil
}

// clear lets go of the request's bytes.
func (h *requestHead) clear() {
	h.clearFields()
	h.method, h.target, h.host, h.id = nil, nil, nil, nil
}

// clearFields also lets go of the fields that were dropped: they stand behind those that
// were kept.
func (h *requestHead) clearFields() {
	clear(h.fields[:h.had])
	h.fields, h.had = h.fields[:0], 0
}

// hopByHop are the fields that concern one connection only (RFC 9110 section
// 7.6.1), and those lbd writes itself.
var hopByHop = [...]string{
	"connection", "keep-alive", "proxy-connection", "proxy-authorization", "proxy-authenticate", "te", "trailer",
	"transfer-encoding", "upgrade", "expect", "host", "content-length",
}

func isHopByHop(name []byte) bool {
	for _, n := range hopByHopByLength[min(len(name), len(hopByHopByLength)-1)] {
		if relay.EqualFold(name, n) {
			return true
		}
	}
	return false
}

// hopByHopByLength finds candidates at once; the last entry is for all longer names.
var hopByHopByLength = func() (t [24][]string) {
	for _, n := range hopByHop {
		t[len(n)] = append(t[len(n)], n)
	}
	return t
}()

// maxNominated bounds what Connection may name: each name is compared with each
// field, and 16 KiB of one and the other made 33 million comparisons.
const maxNominated = 64

// dropHopByHop also drops what Connection names.
func (h *requestHead) dropHopByHop() *apiError {
	nominated := 0
	for _, f := range h.fields {
		if len(f.Name) != len("connection") || !relay.EqualFold(f.Name, "connection") {
			continue
		}
		if nominated += 1 + bytes.Count(f.Value, []byte(",")); nominated > maxNominated {
			return badRequest(malformed, "Connection names more than %d fields", maxNominated)
		}
		if !relay.EqualFold(f.Value, "keep-alive") && !relay.EqualFold(f.Value, "close") { // as nearly always
			h.dropNominated(f.Value)
		}
	}
	kept := h.fields[:0]
	for _, f := range h.fields {
		if len(f.Name) > 0 && !isHopByHop(f.Name) {
			kept = append(kept, f)
		}
	}
	h.fields = kept
	return nil
}

func (h *requestHead) dropNominated(list []byte) {
	for i, f := range h.fields {
		if relay.HasName(list, f.Name) && !bytes.EqualFold(f.Name, []byte("Connection")) {
			h.fields[i].Name = nil
		}
	}
}

// noteForwarded drops what a client may not say of where it comes from.
func (h *requestHead) noteForwarded(p *forwarded.Peer, said *forwarded.Fields) {
	kept := h.fields[:0]
	for _, f := range h.fields {
		if p.Note(said, f.Name, f.Value) {
			kept = append(kept, f)
		}
	}
	h.fields = kept
}

// shown is what a replica is told beside what the client sent.
type shown struct {
	authorization string // of lbd's own, in place of the client's; empty = none
	dropKeys      bool   // the client's keys are for lbd alone
	peer          *forwarded.Peer
	said          *forwarded.Fields
}

// appendTo writes the head a replica gets. The body is always sent with its
// length, whatever framing it came in.
func (h *requestHead) appendTo(dst []byte, e *balancer.Endpoint, bodyLen int, show shown) []byte {
	own := show.dropKeys || show.authorization != ""
	dst = append(dst, h.method...)
	dst = append(dst, ' ')
	dst = append(dst, e.BasePath...)
	dst = append(dst, h.target...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, e.Host...)
	for _, f := range h.fields {
		if own && keys.IsCredential(f.Name) {
			continue
		}
		dst = append(dst, "\r\n"...)
		dst = append(dst, f.Name...)
		dst = append(dst, ": "...)
		dst = append(dst, f.Value...)
	}
	if show.authorization != "" {
		dst = append(append(dst, "\r\nAuthorization: "...), show.authorization...)
	}
	dst = show.peer.Append(dst, show.said, h.host)
	if h.ownID {
		dst = append(dst, "\r\n"+requestIDHeader+": "...)
		dst = append(dst, h.id...)
	}
	if bodyLen > 0 || !bodyless(h.method) {
		dst = append(dst, "\r\nContent-Length: "...)
		dst = strconv.AppendInt(dst, int64(bodyLen), 10)
	}
	return append(dst, "\r\n\r\n"...)
}

// bodyless methods need no Content-Length of 0 (RFC 9110 section 8.6).
func bodyless(method []byte) bool {
	switch string(method) {
	case "GET", "HEAD", "DELETE", "OPTIONS":
		return true
	}
	return false
}

// safe says that the request asks for no change, so that running it twice does no harm
// (RFC 9110 section 9.2.1; section 9.2.2 lets a proxy repeat it).
func (h *requestHead) safe() bool {
	switch string(h.method) {
	case "GET", "HEAD", "OPTIONS":
		return true
	}
	return false
}

// originForm turns http://host/path into /path.
func originForm(uri []byte) []byte {
	if len(uri) > 0 && uri[0] == '/' {
		return uri
	}
	if i := bytes.Index(uri, []byte("://")); i > 0 {
		rest := uri[i+3:]
		if j := bytes.IndexAny(rest, "/?"); j >= 0 {
			if rest[j] == '?' { // an empty path is the root (RFC 9112 section 3.2.2)
				return append([]byte("/"), rest[j:]...)
			}
			return rest[j:]
		}
	}
	return []byte("/")
}

// authority returns the host of http://host/path, which counts in place of Host (RFC
// 9112 section 3.2.2); nil where the target is a path.
func authority(uri []byte) []byte {
	if len(uri) > 0 && uri[0] == '/' {
		return nil
	}
	_, rest, ok := bytes.Cut(uri, []byte("://"))
	if !ok {
		return nil
	}
	if i := bytes.IndexAny(rest, "/?"); i >= 0 {
		rest = rest[:i]
	}
	return rest
}

// requestID is the client's X-Request-Id, or one made here, of a request that is not
// relayed.
func requestID(req *inbound.Request) []byte {
	if id := field(req, "x-request-id"); len(id) > 0 {
		return id
	}
	return newRequestID(new([32]byte))
}

// newRequestID fills buf with 32 hexadecimal digits: 64 random bits of this process
// and the number of the request. They tell requests apart; they are no secret.
func newRequestID(buf *[32]byte) []byte {
	*buf = requestIDBase
	n := requestIDs.Add(1)
	for i := len(buf) - 1; n > 0; i-- {
		buf[i] = "0123456789abcdef"[n&15]
		n >>= 4
	}
	return buf[:]
}

var (
	requestIDs    atomic.Uint64
	requestIDBase = func() (b [32]byte) {
		hex.Encode(b[:16], binary.BigEndian.AppendUint64(nil, rand.Uint64()))
		copy(b[16:], "0000000000000000")
		return b
	}()
)
