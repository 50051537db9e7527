package daemon_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"
	"github.com/spf13/pflag"

	"lbd/balancer/strategy"
	"lbd/cmd/lbd/internal/config"
	"lbd/cmd/lbd/internal/daemon"
	"lbd/cmd/lbd/internal/lines"
)

// bare is a replica that does next to nothing and allocates nothing per request,
// so that what is measured is lbd's.
type bare struct {
	ln     net.Listener
	answer func(nc net.Conn) error
	wg     sync.WaitGroup
}

func bareReplica(tb testing.TB, answer func(nc net.Conn) error) *bare {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	b := &bare{ln: ln, answer: answer}
	b.wg.Go(b.accept)
	tb.Cleanup(func() {
		ln.Close()
		b.wg.Wait()
	})
	return b
}

func (b *bare) accept() {
	for {
		nc, err := b.ln.Accept()
		if err != nil {
			return
		}
		b.wg.Go(func() { b.serve(nc) })
	}
}

var (
	endOfHead   = []byte("\r\n\r\n")
	lengthField = []byte("\r\nContent-Length: ")
	ownPages    = [][]byte{[]byte("GET /health "), []byte("GET /metrics")}
	modelsGet   = []byte("GET /v1/models ")
	emptyAnswer = []byte("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
	modelsPage  = jsonAnswer(`{"object":"list","data":[{"id":"` + llama + `","object":"model"}]}`)
)

func jsonAnswer(body string) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\ndate: Mon, 01 Jan 2024 00:00:00 GMT\r\nserver: uvicorn\r\n"+
		"content-length: %d\r\ncontent-type: application/json\r\n\r\n%s", len(body), body)
}

func (b *bare) serve(nc net.Conn) {
	defer nc.Close()
	buf := make([]byte, 64<<10)
	for {
		n := 0
		for !whole(buf[:n]) {
			m, err := nc.Read(buf[n:])
			if err != nil {
				return
			}
			n += m
		}
		if b.reply(nc, buf[:n]) != nil {
			return
		}
	}
}

func (b *bare) reply(nc net.Conn, request []byte) error {
	var err error
	switch {
	case bytes.HasPrefix(request, ownPages[0]), bytes.HasPrefix(request, ownPages[1]):
		_, err = nc.Write(emptyAnswer)
	case bytes.HasPrefix(request, modelsGet):
		_, err = nc.Write(modelsPage)
	default:
		err = b.answer(nc)
	}
	return err
}

// whole says that p holds a request of known length to its end.
func whole(p []byte) bool {
	end := bytes.Index(p, endOfHead)
	if end < 0 {
		return false
	}
	length := 0
	if i := bytes.Index(p[:end], lengthField); i >= 0 {
		for _, c := range p[i+len(lengthField) : end] {
			if c < '0' || c > '9' {
				break
			}
			length = length*10 + int(c-'0')
		}
	}
	return len(p) >= end+len(endOfHead)+length
}

// bareLBD starts an lbd that does not poll while it is measured, and connects to it. end
// is how the replica's answers end. It logs to nowhere, and requests if that is set.
func bareLBD(tb testing.TB, b *bare, end []byte, settings ...string) net.Conn {
	tb.Helper()
	fs := pflag.NewFlagSet("bench", pflag.ContinueOnError)
	config.Flags(fs)
	for k, v := range map[string]string{
		"listen": "127.0.0.1:0", "admin-listen": "", "endpoints": "http://" + b.ln.Addr().String(),
		"metrics-poll-interval": "1h", "models-poll-interval": "1h", "health-interval": "1h", "upstream-idle-timeout": "1m",
	} {
		if err := fs.Set(k, v); err != nil {
			tb.Fatal(err)
		}
	}
	for i := 0; i < len(settings); i += 2 {
		if err := fs.Set(settings[i], settings[i+1]); err != nil {
			tb.Fatal(err)
		}
	}
	cfg, err := config.Load(config.Options{Flags: fs, Strategies: strategy.Names(), ReadFile: os.ReadFile})
	if err != nil {
		tb.Fatal(err)
	}
	log, lines := zerolog.Nop(), (*lines.Writer)(nil)
	if cfg.AccessLog {
		log, lines = daemon.NewLogger(io.Discard, cfg)
	}
	tb.Cleanup(func() { lines.Close() }) // after the end of lbd
	d, err := daemon.New(cfg, daemon.Options{Log: log, Lines: lines, Version: "bench"})
	if err == nil {
		err = d.Start()
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { d.Stop(context.Background()) })
	nc, err := net.Dial("tcp", d.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { nc.Close() })
	for { // until the model is known
		if err := ask(nc, bareRequest(`{"model":"`+llama+`"}`), end); err == nil {
			return nc
		}
	}
}

func bareRequest(body string) []byte {
	return []byte(postText("/v1/chat/completions", body, "User-Agent: OpenAI/Python 1.54.0", "Accept: application/json",
		"Accept-Encoding: gzip, deflate", "Authorization: Bearer sk-0123456789", "X-Stainless-Lang: python"))
}

var (
	okStart    = []byte("HTTP/1.1 200 OK\r\n")
	answerBuf  = make([]byte, 64<<10)
	errNotOK   = errors.New("not the answer that was wanted")
	lastChunk  = []byte("\r\n0\r\n\r\n")
	smallBody  = chat(llama, false, 16, `"temperature":0.7`, `"user":"`+strings.Repeat("u", 80)+`"`)
	smallReply = jsonAnswer(`{"id":"chatcmpl-1","object":"chat.completion","created":1731628800,"model":"` + llama + `","choices":[{"index":0,` +
		`"message":{"role":"assistant","content":"Hello there"},"finish_reason":"stop"}],"usage":{"prompt_tokens":11,"total_tokens":27,"completion_tokens":16}}`)
)

// ask sends a request and reads to the end of its answer, which is known by its
// last bytes. It allocates nothing.
func ask(nc net.Conn, request, end []byte) error {
	if _, err := nc.Write(request); err != nil {
		return err
	}
	for n := 0; ; {
		m, err := nc.Read(answerBuf[n:])
		if err != nil {
			return err
		}
		n += m
		switch {
		case !bytes.HasPrefix(answerBuf[:n], okStart):
			return errNotOK
		case bytes.HasSuffix(answerBuf[:n], end):
			return nil
		case n > len(answerBuf)/2: // a long stream: only its end matters
			copy(answerBuf[len(okStart):], answerBuf[n-64:n])
			n = len(okStart) + 64
		}
	}
}

// stream returns an answer of n events, one write each.
func stream(n int) func(net.Conn) error {
	head := []byte(sseHead)
	ev := []byte(event(" token"))
	last := []byte(lastEvents)
	return func(nc net.Conn) error {
		if _, err := nc.Write(head); err != nil {
			return err
		}
		for range n {
			if _, err := nc.Write(ev); err != nil {
				return err
			}
		}
		_, err := nc.Write(last)
		return err
	}
}

var smallEnd = smallReply[len(smallReply)-20:]

func small(nc net.Conn) error {
	_, err := nc.Write(smallReply)
	return err
}

func BenchmarkSmallJSON(b *testing.B) {
	nc := bareLBD(b, bareReplica(b, small), smallEnd)
	request := bareRequest(smallBody)
	b.ReportAllocs()
	for b.Loop() {
		if err := ask(nc, request, smallEnd); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEvent counts events: b.N of them, a hundred to a stream.
func BenchmarkEvent(b *testing.B) {
	const events = 100
	nc := bareLBD(b, bareReplica(b, stream(events)), lastChunk)
	request := bareRequest(chat(llama, true, events))
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; i += events {
		if err := ask(nc, request, lastChunk); err != nil {
			b.Fatal(err)
		}
	}
}
