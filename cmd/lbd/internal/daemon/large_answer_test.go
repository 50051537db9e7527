package daemon_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"
)

// largeAnswer is a body that passes lbd within the kernel, but for its ends.
var largeAnswer = func() []byte {
	b := make([]byte, 12<<20)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}()

// A large body of known length arrives byte for byte, on a connection that goes on,
// and its usage is still read.
func TestLargeAnswer(t *testing.T) {
	usage := []byte(`,"usage":{"prompt_tokens":7,"completion_tokens":3}}`)
	body := append(bytes.Clone(largeAnswer), usage...)
	f := fakeReplica(t, func(c *fakeConn) {
		c.body()
		c.send(fmt.Sprintf("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n", len(body)))
		for rest := body; len(rest) > 0; {
			n := min(len(rest), 1<<20)
			c.nc.Write(rest[:n])
			rest = rest[n:]
		}
		c.keep = true
	})
	p := lbd(t, []string{f.url()})
	w := p.dial()
	for range 2 {
		w.sendPost("/v1/embeddings", `{"input":"x"}`)
		got := w.answer("POST")
		if got.err != nil || got.body != string(body) {
			t.Fatalf("%s %v: %s", got.Status, got.err, firstDiff(got.body, string(body)))
		}
	}
	p.until("usage counted", func() bool { return p.metric(`lbd_prompt_tokens_total{model="`+llama+`"}`) == "14" })
}

// A replica that breaks off or falls silent within such a body leaves an answer that
// is seen to be cut, and is blamed for it.
func TestLargeAnswerBreaksOff(t *testing.T) {
	for _, reason := range []string{"reset", "timeout"} {
		t.Run(reason, func(t *testing.T) {
			f := fakeReplica(t, func(c *fakeConn) {
				c.body()
				c.send(fmt.Sprintf("HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n", len(largeAnswer)))
				c.nc.Write(largeAnswer[:5<<20])
				if reason == "timeout" {
					c.gone()
				}
			})
			var settings []string
			if reason == "timeout" {
				settings = []string{"stream-idle-timeout", "300ms"}
			}
			p := lbd(t, []string{f.url()}, settings...)
			w := p.dial()
			w.sendPost("/v1/embeddings", `{"input":"x"}`)
			if got := w.answer("POST"); got.err == nil || len(got.body) > 5<<20 {
				t.Errorf("%v, %d bytes; want a cut answer", got.err, len(got.body))
			}
			series := fmt.Sprintf(`lbd_upstream_errors_total{reason=%q,replica=%q}`, reason, f.ln.Addr())
			p.counted(series, "1")
		})
	}
}

// A client that takes nothing of such a body is dropped, and the replica is not
// blamed.
func TestLargeAnswerNobodyTakes(t *testing.T) {
	gone := make(chan struct{})
	f := fakeReplica(t, func(c *fakeConn) {
		c.body()
		c.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
		for {
			if _, err := c.nc.Write(largeAnswer[:1<<20]); err != nil {
				close(gone)
				return
			}
		}
	})
	p := lbd(t, []string{f.url()}, "client-write-timeout", "300ms")
	w := p.dial()
	w.nc.SetReadBuffer(4 << 10)
	w.sendPost("/v1/embeddings", `{"input":"x"}`)
	select {
	case <-gone:
	case <-time.After(patience):
		t.Fatal("the replica still sends")
	}
	p.until("own load 0", func() bool { return p.Snapshot().Replicas[0].InFlight() == 0 })
	p.counted(`lbd_client_disconnects_total{model="`+llama+`"}`, "1")
}
