//go:build linux

package main

import (
	"bytes"
	"fmt"
	"strings"
)

// model is the one model both replicas serve.
const model = "meta-llama/Llama-3.1-8B-Instruct"

const (
	markByte  = '@' // begins the stamp in an event and occurs nowhere else in it
	markDigit = 16
)

// prose fills prompts and answers: plain text with an escaped quote or newline
// every 80 bytes or so, as chat messages have it. A scanner that skips strings
// stops at each of them.
const prose = `The load balancer reads what it must know from the request, \"the model\" above all, ` +
	`and passes the bytes on as they came.\nNothing else in the body is its business. `

// fill returns n bytes of prose that end on no half escape.
func fill(n int) string {
	s := strings.Repeat(prose, n/len(prose)+1)[:n]
	if strings.HasSuffix(s, `\`) {
		s = s[:n-1] + " "
	}
	return s
}

// sized pads the one %s of a JSON text so that the text has n bytes.
func sized(format string, n int) []byte {
	fixed := len(format) - len("%s")
	return fmt.Appendf(nil, format, fill(max(n-fixed, 1)))
}

// clientKey is what requests show as their API key.
const clientKey = "sk-0123456789abcdef0123456789abcdef"

// request is a chat completion as OpenAI's Python client sends it: the model
// after the messages, a handful of headers. more are further lines of the head.
func request(body int, stream bool, more string) []byte {
	accept := "application/json"
	tail := `"model":"` + model + `","stream":false}`
	if stream {
		tail = `"model":"` + model + `","stream":true,"stream_options":{"include_usage":true}}`
	}
	b := sized(`{"messages":[{"role":"user","content":"%s"}],`+tail, body)
	head := fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: lbd.example.org\r\nAccept-Encoding: gzip, deflate\r\n"+
		"Connection: keep-alive\r\nAccept: %s\r\nContent-Type: application/json\r\nUser-Agent: OpenAI/Python 1.99.1\r\n"+
		"Authorization: Bearer "+clientKey+"\r\n%sContent-Length: %d\r\n\r\n", accept, more, len(b))
	return append([]byte(head), b...)
}

// answer is a whole response with a JSON body of n bytes, under the headers
// uvicorn sends.
func answer(kind string, body []byte) []byte {
	return append(fmt.Appendf(nil, "HTTP/1.1 200 OK\r\ndate: Fri, 02 Oct 2026 07:00:00 GMT\r\nserver: uvicorn\r\n"+
		"content-length: %d\r\ncontent-type: %s\r\n\r\n", len(body), kind), body...)
}

func completion(n int) []byte {
	return sized(`{"id":"chatcmpl-1","object":"chat.completion","created":1790000000,"model":"`+model+
		`","choices":[{"index":0,"message":{"role":"assistant","content":"%s"},"finish_reason":"stop"}],`+
		`"usage":{"prompt_tokens":60,"total_tokens":80,"completion_tokens":20}}`, n)
}

const streamHead = "HTTP/1.1 200 OK\r\ndate: Fri, 02 Oct 2026 07:00:00 GMT\r\nserver: uvicorn\r\n" +
	"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"

func chunk(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }

// event is one chunk of a vLLM chat stream; stamped writes the time into it. The
// object is vLLM's, with short names: 190 bytes of JSON around a token are what
// costs, not which they are.
var event = []byte(chunk(`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1790000000,"model":"m",` +
	`"choices":[{"index":0,"delta":{"content":"@0000000000000000"},"finish_reason":null}]}` + "\n\n"))

var eventMark = bytes.IndexByte(event, markByte) + 1

// streamEnd is what vLLM sends last: usage, the end mark, the end of the body.
var streamEnd = []byte(chunk(`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1790000000,"model":"m",`+
	`"choices":[],"usage":{"prompt_tokens":60,"total_tokens":160,"completion_tokens":100}}`+"\n\n") +
	chunk("data: [DONE]\n\n") + "0\r\n\r\n")

const hexDigits = "0123456789abcdef"

// stamp writes a time in hexadecimal digits.
func stamp(b []byte, t int64) {
	for i := markDigit - 1; i >= 0; i-- {
		b[i] = hexDigits[t&15]
		t >>= 4
	}
}

func unhex(c byte) int64 {
	switch {
	case c >= '0' && c <= '9':
		return int64(c - '0')
	case c >= 'a' && c <= 'f':
		return int64(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int64(c-'A') + 10
	}
	return -1
}

// framing reads from a head how long the body is; -1 without a length.
func framing(head []byte) (length int64, chunked bool) {
	length = -1
	for len(head) > 0 {
		line := head
		if i := bytes.IndexByte(head, '\n'); i >= 0 {
			line, head = head[:i], head[i+1:]
		} else {
			head = nil
		}
		if len(line) == 0 {
			continue
		}
		switch line[0] | 0x20 {
		case 'c':
			if v, ok := field(line, "content-length:"); ok {
				length = decimal(v)
			}
		case 't':
			if v, ok := field(line, "transfer-encoding:"); ok {
				chunked = bytes.Contains(v, []byte("chunked"))
			}
		}
	}
	return length, chunked
}

func field(line []byte, name string) ([]byte, bool) {
	if len(line) < len(name) || !strings.EqualFold(string(line[:len(name)]), name) {
		return nil, false
	}
	return bytes.TrimSpace(line[len(name):]), true
}

func decimal(b []byte) int64 {
	n := int64(0)
	for _, c := range b {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int64(c-'0')
	}
	return n
}

// dechunk decodes chunked framing as it comes.
type dechunk struct {
	state chunkState
	left  int64
	blank bool // the trailer line read so far is empty
}

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkExt
	chunkData
	chunkDataEnd
	chunkTrailer
)

// next consumes a part of b. It returns what is left of b, a part of the body
// if one was found, whether the body has ended, and whether the framing is sound.
func (d *dechunk) next(b []byte) (rest, body []byte, done, ok bool) {
	for len(b) > 0 {
		c := b[0]
		switch d.state {
		case chunkData:
			n := min(int64(len(b)), d.left)
			if d.left -= n; d.left == 0 {
				d.state = chunkDataEnd
			}
			return b[n:], b[:n], false, true
		case chunkSize, chunkExt:
			if !d.size(c) {
				return b, nil, false, false
			}
		case chunkDataEnd:
			if c == '\n' {
				d.state = chunkSize
			} else if c != '\r' {
				return b, nil, false, false
			}
		case chunkTrailer:
			if c == '\n' && d.blank {
				*d = dechunk{}
				return b[1:], nil, true, true
			}
			d.blank = c == '\n' || c == '\r' && d.blank
		}
		b = b[1:]
	}
	return nil, nil, false, true
}

// size takes one byte of a chunk's first line.
func (d *dechunk) size(c byte) bool {
	switch {
	case c == '\n':
		d.state, d.blank = chunkTrailer, true
		if d.left > 0 {
			d.state = chunkData
		}
	case d.state == chunkExt || c == '\r':
	case c == ';' || c == ' ':
		d.state = chunkExt
	default:
		v := unhex(c)
		if v < 0 || d.left > 1<<40 {
			return false
		}
		d.left = d.left<<4 | v
	}
	return true
}
