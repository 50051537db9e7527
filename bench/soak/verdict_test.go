//go:build linux

package main

import (
	"errors"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
)

func TestVerdict(t *testing.T) {
	const whole = `{"model":"m","usage":{"prompt_tokens":3,"completion_tokens":7}}`
	const stream = `data: {"model":"m","choices":[]}` + "\n\n" + `data: {"model":"m","usage":{"completion_tokens":7}}` + "\n\n"
	const done = "data: [DONE]\n\n"
	own := func(message string) string { return `{"error":{"message":"` + message + `"}}` }
	for _, c := range []struct {
		name    string
		stream  bool
		status  int
		replica string
		body    string
		err     error
		want    cause
	}{
		{"whole", false, 200, "a:1", whole, nil, ""},
		{"stream", true, 200, "a:1", stream + done, nil, ""},
		{"of another request", false, 200, "a:1", strings.Replace(whole, "7", "8", 1), nil, wrong},
		{"stream of another request", true, 200, "a:1", strings.Replace(stream, ":7", ":8", 1) + done, nil, wrong},
		{"of another model", false, 200, "a:1", strings.Replace(whole, `"m"`, `"n"`, 1), nil, wrong},
		{"broken off", true, 200, "a:1", stream, io.ErrUnexpectedEOF, cut},
		{"broken off, of another model", true, 200, "a:1", strings.Replace(stream, `"m"`, `"n"`, 1), io.ErrUnexpectedEOF, wrong},
		{"cut within the model's name", true, 200, "a:1", `data: {"model":"`, io.ErrUnexpectedEOF, cut},
		{"half an answer that looks whole", true, 200, "a:1", stream[:40], nil, wrong},
		{"no [DONE]", true, 200, "a:1", stream, nil, noDone},
		{"no error event", true, 200, "a:1", `data: {"errors":{}}` + "\n\n", nil, wrong},
		{"error event, v0.19", true, 200, "a:1", `data: {"error":{}}` + "\n\n" + done, nil, errorEvent},
		{"error event, v0.6.4", true, 200, "a:1", `data: {"object":"error"}` + "\n\n" + done, nil, errorEvent},
		{"replica's 500", false, 500, "a:1", "", nil, replicaError},
		{"replica's 404", false, 404, "a:1", "", nil, foreignModel},
		{"replica's 400", false, 400, "a:1", "", nil, wrong},
		{"closed", false, 502, "", own("replica a:1 closed the connection without an answer"), nil, closed},
		{"no head", false, 502, "", own("replica a:1 answered with a malformed head; want a first line of HTTP/1.1"), nil, notHTTP},
		{"unreachable", false, 502, "", own("cannot connect to replica a:1: connection refused"), nil, unreachable},
		{"silent", false, 504, "", own("replica a:1 sent no byte for 5s"), nil, timedOut},
		{"silent, wrong status", false, 502, "", own("replica a:1 sent no byte for 5s"), nil, wrong},
		{"nobody", false, 503, "", own(`no healthy replica serves \"m\" at the moment`), nil, noReplica},
		{"no model", false, 404, "", own(`The model \"m\" does not exist. Served here: n.`), nil, noModel},
		{"unknown", false, 500, "", own("oops"), nil, wrong},
		{"not JSON", false, 502, "", "Bad Gateway", nil, wrong},
		{"no end", false, 502, "", own("replica a:1 broke off its answer"), io.ErrUnexpectedEOF, wrong},
	} {
		a := answer{status: c.status, header: http.Header{}, body: []byte(c.body), err: c.err, head: true}
		if c.replica != "" {
			a.header.Set("X-Lbd-Replica", c.replica)
		}
		q := request{model: "m", stream: c.stream, tokens: 7}
		got, blamed := q.verdict(a)
		if got != c.want {
			t.Errorf("%s: %q; want %q", c.name, got, c.want)
		}
		if strings.Contains(c.body, "replica a:1") && got != wrong && blamed != "a:1" {
			t.Errorf("%s: blames %q; want a:1", c.name, blamed)
		}
	}
	if got, _ := (request{}).verdict(answer{err: errors.New("reset")}); got != noAnswer {
		t.Errorf("no head: %q", got)
	}
}

// The proxy's words are known here: a message that changes there is an error that nothing
// explains here.
func TestOwnCauses(t *testing.T) {
	said := regexp.MustCompile(`(?:replica|timeout)Error\("([^"]+)"`)
	n := 0
	for _, file := range []string{"../../proxy/attempt.go", "../../proxy/respond.go"} {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range said.FindAllSubmatch(source, -1) {
			n++
			message := strings.NewReplacer("%s", "a:1", "%d", "503").Replace(string(m[1]))
			known := false
			for _, o := range ownCauses {
				known = known || o.text.MatchString(message)
			}
			if !known {
				t.Errorf("%s: nothing knows %q", file, message)
			}
		}
	}
	if n < 7 {
		t.Errorf("%d messages found; want the proxy's 7 at least", n)
	}
}
