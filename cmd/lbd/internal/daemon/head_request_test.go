package daemon_test

import (
	"strings"
	"testing"
)

// The answer to HEAD says no more of the length than the replica's.
func TestHeadRequest(t *testing.T) {
	for answer, want := range map[string]string{
		"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n":   "",
		"HTTP/1.1 200 OK\r\n\r\n":                                 "",
		"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n":            "0",
		"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n":            "5",
		"HTTP/1.1 200 OK\r\ncontent-length: 5000000000\r\n\r\n":   "5000000000",
		"HTTP/1.1 404 Not Found\r\ncontent-length: 22\r\n\r\n":    "22",
		"HTTP/1.1 304 Not Modified\r\ncontent-length: 22\r\n\r\n": "", // may be left out
		"HTTP/1.1 204 No Content\r\nx: 1\r\n\r\n":                 "",
	} {
		f := fakeReplica(t, say(answer, true))
		w := lbd(t, []string{f.url()}).dial()
		for range 2 {
			w.send("HEAD /v1/x HTTP/1.1\r\nHost: lbd\r\n\r\n")
			head, err := readUntilBlank(w.br)
			if got := headField(head, "Content-Length"); err != nil || got != want || strings.Contains(head, "Connection: close") {
				t.Errorf("%q: length %q, %v; want %q\n%s", answer, got, err, want, head)
			}
		}
	}
}
