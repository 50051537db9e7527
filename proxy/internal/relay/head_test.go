package relay

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

func TestHeadGood(t *testing.T) {
	field := func(n, v string) Field { return Field{[]byte(n), []byte(v)} }
	tests := []struct {
		name, in string
		want     Head
		framing  Framing
	}{
		{"stream of vLLM", "HTTP/1.1 200 OK\nserver: uvicorn\ncontent-type: text/event-stream; charset=utf-8\ntransfer-encoding: chunked\n\n", Head{
			Status: 200, Reason: []byte("OK"), Minor: 1, Length: -1, Chunked: true, SSE: true,
			Fields: []Field{field("server", "uvicorn"), field("content-type", "text/event-stream; charset=utf-8"), field("transfer-encoding", "chunked")},
		}, Chunked},
		{"JSON, odd case, odd spaces", "HTTP/1.1 404 Not Found\nCONTENT-length:  12\t\nContent-TYPE:application/JSON\n\n", Head{
			Status: 404, Reason: []byte("Not Found"), Minor: 1, Length: 12, JSON: true,
			Fields: []Field{field("CONTENT-length", "12"), field("Content-TYPE", "application/JSON")},
		}, Length},
		{"no reason", "HTTP/1.1 200\n\n", Head{Status: 200, Minor: 1, Length: -1}, UntilClose},
		{"empty reason", "HTTP/1.1 200 \n\n", Head{Status: 200, Minor: 1, Length: -1}, UntilClose},
		{"reason of opaque bytes", "HTTP/1.1 200 \xff\xfe\n\n", Head{Status: 200, Reason: []byte("\xff\xfe"), Minor: 1, Length: -1}, UntilClose},
		{"HTTP/1.0 closes", "HTTP/1.0 200 OK\n\n", Head{Status: 200, Reason: []byte("OK"), Length: -1, Close: true}, UntilClose},
		{"HTTP/1.0 keep-alive", "HTTP/1.0 200 OK\nConnection: Keep-Alive\nContent-Length: 3\n\n", Head{
			Status: 200, Connection: []byte("Keep-Alive"), Reason: []byte("OK"), Length: 3, Fields: []Field{field("Connection", "Keep-Alive"), field("Content-Length", "3")},
		}, Length},
		{"close beats keep-alive", "HTTP/1.0 200 OK\nConnection: close\nConnection: keep-alive\n\n", Head{
			Status: 200, Connection: []byte("close,keep-alive"), Reason: []byte("OK"), Length: -1, Close: true, Fields: []Field{field("Connection", "close"), field("Connection", "keep-alive")},
		}, UntilClose},
		{"close in a list", "HTTP/1.1 200 OK\nConnection: x-foo , CLOSE\n\n", Head{
			Status: 200, Connection: []byte("x-foo , CLOSE"), Reason: []byte("OK"), Minor: 1, Length: -1, Close: true, Fields: []Field{field("Connection", "x-foo , CLOSE")},
		}, UntilClose},
		{"closed is not close", "HTTP/1.1 200 OK\nConnection: closed\n\n", Head{
			Status: 200, Connection: []byte("closed"), Reason: []byte("OK"), Minor: 1, Length: -1, Fields: []Field{field("Connection", "closed")},
		}, UntilClose},
		{"equal lengths", "HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 5\n\n", Head{
			Status: 200, Reason: []byte("OK"), Minor: 1, Length: 5, Fields: []Field{field("Content-Length", "5"), field("Content-Length", "5")},
		}, Length},
		{"length zero", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", Head{
			Status: 200, Reason: []byte("OK"), Minor: 1, Length: 0, Fields: []Field{field("Content-Length", "0")},
		}, NoBody},
		{"204", "HTTP/1.1 204 No Content\n\n", Head{Status: 204, Reason: []byte("No Content"), Minor: 1, Length: -1}, NoBody},
		{"304 with length", "HTTP/1.1 304 Not Modified\nContent-Length: 9\n\n", Head{
			Status: 304, Reason: []byte("Not Modified"), Minor: 1, Length: 9, Fields: []Field{field("Content-Length", "9")},
		}, NoBody},
		{"interim", "HTTP/1.1 100 Continue\n\n", Head{Status: 100, Reason: []byte("Continue"), Minor: 1, Length: -1}, NoBody},
		{"encoded", "HTTP/1.1 200 OK\nContent-Encoding: gzip\nContent-Type: text/event-stream\n\n", Head{
			Status: 200, Reason: []byte("OK"), Minor: 1, Length: -1, Encoded: true,
			Fields: []Field{field("Content-Encoding", "gzip"), field("Content-Type", "text/event-stream")},
		}, UntilClose},
		{"empty value", "HTTP/1.1 200 OK\nX-Empty:\nX-Blank: \t \n\n", Head{
			Status: 200, Reason: []byte("OK"), Minor: 1, Length: -1, Fields: []Field{field("X-Empty", ""), field("X-Blank", "")},
		}, UntilClose},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := []byte(crlf(tt.in))
			h := Head{Status: 999, Chunked: true, Close: true, closes: true, Encoded: true, Fields: make([]Field, 7)} // of an earlier response
			for n := range in {
				if size, err := h.Parse(in[:n]); size != 0 || err != nil {
					t.Fatalf("Parse(first %d bytes) = %d, %v; want 0, nil", n, size, err)
				}
			}
			size, err := h.Parse(append(in, "HTTP/1.1 500 next\r\n"...))
			if size != len(in) || err != nil {
				t.Fatalf("Parse = %d, %v; want %d, nil", size, err, len(in))
			}
			if d := cmp.Diff(tt.want, h, cmpopts.IgnoreUnexported(Head{}), cmpopts.EquateEmpty()); d != "" {
				t.Error(d)
			}
			if got := h.Framing(false); got != tt.framing {
				t.Errorf("Framing = %d; want %d", got, tt.framing)
			}
			if got := h.Framing(true); got != NoBody {
				t.Errorf("Framing of a HEAD response = %d; want NoBody", got)
			}
		})
	}
}

func TestHeadMalformed(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\n"
	for _, in := range []string{
		"\n" + ok + "\n", " " + ok + "\n",
		"HTTP/1.2 200 OK\n\n", "HTTP/2.0 200 OK\n\n", "http/1.1 200 OK\n\n", "HTTP/1.1  200 OK\n\n", "HTTP/1.1\t200 OK\n\n",
		"HTTP/1.1 20 OK\n\n", "HTTP/1.1 2000 OK\n\n", "HTTP/1.1 099 OK\n\n", "HTTP/1.1 600 OK\n\n", "HTTP/1.1 2x0 OK\n\n", "HTTP/1.1 \n\n",
		"HTTP/1.1 200OK\n\n", "HTTP/1.1 200 O\x00K\n\n", "HTTP/1.1 200 O\rK\n\n", "HTTP/1.1 200 O\x7fK\n\n",
		"GET / HTTP/1.1\n\n", "0\n\n", "data: x\n\n",
		ok + "X-A\n\n", ok + ": v\n\n", ok + "X A: v\n\n", ok + "X-A : v\n\n", ok + "X\tA: v\n\n", ok + "X\x80: v\n\n", ok + "X(: v\n\n",
		ok + "X-A: 1\n folded\n\n", ok + "X-A: 1\n\tfolded: x\n\n", ok + " X-A: 1\n\n",
		ok + "X-A: a\x00b\n\n", ok + "X-A: a\rb\n\n", ok + "X-A: a\x1bb\n\n", ok + "X-A: a\x7fb\n\n",
		ok + "Content-Length:\n\n", ok + "Content-Length: +2\n\n", ok + "Content-Length: -2\n\n", ok + "Content-Length: 2, 2\n\n",
		ok + "Content-Length: 0x2\n\n", ok + "Content-Length: 2 2\n\n", ok + "Content-Length: 2.0\n\n",
		ok + "Content-Length: 9999999999999999999\n\n", ok + "Content-Length: 2\nContent-Length: 3\n\n",
		ok + "Content-Length: 2\nTransfer-Encoding: chunked\n\n", ok + "Transfer-Encoding: chunked\ncontent-length: 2\n\n",
		ok + "Transfer-Encoding: gzip\n\n", ok + "Transfer-Encoding: gzip, chunked\n\n", ok + "Transfer-Encoding: chunked, identity\n\n",
		ok + "Transfer-Encoding: identity\n\n", ok + "Transfer-Encoding:\n\n", ok + "Transfer-Encoding: xchunked\n\n",
		ok + "Transfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n",
		"HTTP/1.0 200 OK\nTransfer-Encoding: chunked\n\n",
		ok + strings.Repeat("X: y\n", maxFields+1) + "\n",
	} {
		var h Head
		if n, err := h.Parse([]byte(crlf(in))); !errors.Is(err, ErrBadHead) || n != 0 {
			t.Errorf("Parse(%.60q) = %d, %v; want ErrBadHead", in, n, err)
		}
	}
}

// Bytes that cannot become a head are refused without waiting for its end.
func TestHeadRefusedEarly(t *testing.T) {
	for _, in := range []string{
		"h", "HTTP/2", "HTTP/1.1 200 OK\n", "\n", "HTTP/1.1 200 OK\r\nX-A: 1\n", "HTTP/1.1 200 OK\r\nX A: 1\r\n",
		"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", MaxHead),
	} {
		var h Head
		if n, err := h.Parse([]byte(in)); !errors.Is(err, ErrBadHead) || n != 0 {
			t.Errorf("Parse(%.40q) = %d, %v; want ErrBadHead", in, n, err)
		}
	}
	var h Head
	if n, err := h.Parse(nil); n != 0 || err != nil {
		t.Errorf("Parse(nil) = %d, %v; want 0, nil", n, err)
	}
}

func TestHeadMostFields(t *testing.T) {
	in := []byte("HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", maxFields) + "\r\n")
	var h Head
	if n, err := h.Parse(in); n != len(in) || err != nil || len(h.Fields) != maxFields {
		t.Errorf("Parse = %d, %v with %d fields; want %d fields", n, err, len(h.Fields), maxFields)
	}
}

func TestErrorsQuoteLittle(t *testing.T) {
	var h Head
	_, err := h.Parse([]byte("HTTP/1.1 200 OK\r\nX " + strings.Repeat("secret", 500) + ": 1\r\n\r\n"))
	if err == nil || len(err.Error()) > 200 {
		t.Errorf("error %q; want one that quotes little", err)
	}
}

func TestListNames(t *testing.T) {
	for _, tt := range []struct {
		list, name string
		want       bool
	}{
		{"close", "close", true}, {"Close", "close", true}, {" a ,\tclose ", "close", true}, {"a,,close", "close", true},
		{"closed", "close", false}, {"", "close", false}, {"a close", "close", false}, {"x-a, X-B", "x-b", true},
	} {
		if got := HasToken([]byte(tt.list), tt.name); got != tt.want {
			t.Errorf("HasToken(%q, %q) = %t", tt.list, tt.name, got)
		}
		if got := HasName([]byte(tt.list), []byte(strings.ToUpper(tt.name))); got != tt.want {
			t.Errorf("HasName(%q, %q) = %t", tt.list, tt.name, got)
		}
	}
}

func TestToken(t *testing.T) {
	for c := range 256 {
		want := bytes.IndexByte([]byte("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"), byte(c)) >= 0
		if got := IsToken([]byte{'a', byte(c)}); got != want {
			t.Errorf("IsToken(a%q) = %t; want %t", rune(c), got, want)
		}
	}
	if IsToken(nil) {
		t.Error("an empty name is a token")
	}
}

func FuzzHead(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.0 200\r\nConnection: keep-alive, close\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "HTTP/1.1 200 OK\n\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var h Head
		n, err := h.Parse(in)
		if n == 0 {
			return
		}
		if err != nil || n > len(in) {
			t.Fatalf("Parse = %d, %v", n, err)
		}
		checkHead(t, &h, in[:n])
		// It does not depend on what follows, and no part of it is a head.
		var again Head
		if m, err := again.Parse(in[:n]); m != n || err != nil || !cmp.Equal(h, again, cmp.AllowUnexported(Head{}), cmpopts.EquateEmpty()) {
			t.Fatalf("Parse of the head alone = %d, %v", m, err)
		}
		if m, err := again.Parse(in[:n-1]); m != 0 || err != nil {
			t.Fatalf("Parse of the head but a byte = %d, %v", m, err)
		}
	})
}

// checkHead writes the head anew from what was parsed and compares, blanks
// around values aside.
func checkHead(t *testing.T, h *Head, in []byte) {
	t.Helper()
	lines := strings.Split(string(in), "\r\n")
	first := fmt.Sprintf("HTTP/1.%d %d %s", h.Minor, h.Status, h.Reason)
	if lines[0] != first && lines[0]+" " != first {
		t.Fatalf("status line %q parsed as %q", lines[0], first)
	}
	if len(lines) != len(h.Fields)+3 {
		t.Fatalf("%d fields in %q", len(h.Fields), in)
	}
	for i, f := range h.Fields {
		name, value, _ := strings.Cut(lines[i+1], ":")
		if string(f.Name) != name || string(f.Value) != strings.Trim(value, " \t") {
			t.Fatalf("line %q parsed as %q, %q", lines[i+1], f.Name, f.Value)
		}
	}
}
