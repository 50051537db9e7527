//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// verdict says what is wrong with an answer, "" if nothing is, and which replica
// gave it or is blamed in it.
func (q request) verdict(a answer) (c cause, replica string) {
	if !a.head {
		return noAnswer, ""
	}
	if replica = a.header.Get("X-Lbd-Replica"); replica != "" {
		return q.relayed(a), replica
	}
	return ownError(a)
}

// relayed judges what came from a replica.
func (q request) relayed(a answer) cause {
	switch {
	case a.status == 404:
		return foreignModel
	case a.status >= 500:
		return replicaError
	case a.status != 200:
		return wrong
	case a.err != nil && q.ours(a.body):
		return cut
	case a.err != nil || !q.ours(a.body):
		return wrong
	}
	if q.stream {
		return q.streamed(a.body)
	}
	var whole struct {
		Usage struct {
			CompletionTokens int `json:"completion_tokens"`
		}
	}
	if json.Unmarshal(a.body, &whole) != nil || whole.Usage.CompletionTokens != q.tokens {
		return wrong
	}
	return ""
}

// ours tells whether an answer, or as much of it as came, is of the model asked for.
func (q request) ours(body []byte) bool {
	for rest := body; ; {
		_, after, ok := bytes.Cut(rest, []byte(`"model":"`))
		if !ok {
			return true
		}
		if name := q.model + `"`; !bytes.HasPrefix(after, []byte(name)) && len(after) >= len(name) {
			return false
		}
		rest = after
	}
}

// streamed judges a stream that ended as HTTP wants it.
func (q request) streamed(body []byte) cause {
	done := bytes.HasSuffix(body, []byte("data: [DONE]\n\n"))
	usage := bytes.Contains(body, []byte(fmt.Sprintf(`"completion_tokens":%d`, q.tokens)))
	switch {
	case bytes.Contains(body, []byte(`data: {"object":"error"`)), bytes.Contains(body, []byte(`data: {"error":`)):
		return errorEvent
	case done && usage:
		return ""
	case usage && !done:
		return noDone
	}
	return wrong
}

// ownCauses are the errors of lbd's own by what they say (proxy/attempt.go and
// proxy/respond.go); the first group is the replica.
var ownCauses = []struct {
	status int
	text   *regexp.Regexp
	cause  cause
}{
	{502, regexp.MustCompile(`^cannot connect to replica (\S+):`), unreachable},
	{502, regexp.MustCompile(`^replica (\S+) closed the connection without an answer$`), closed},
	{502, regexp.MustCompile(`^replica (\S+) answered with a malformed head;`), notHTTP},
	{502, regexp.MustCompile(`^replica (\S+) broke off its answer$`), brokenOff},
	{502, regexp.MustCompile(`^replica (\S+) sent a malformed answer$`), malformed},
	{502, regexp.MustCompile(`^replica (\S+) answers \d+$`), isLoading},
	{504, regexp.MustCompile(`^replica (\S+) (?:sent no byte for|stopped sending in)`), timedOut},
	{503, regexp.MustCompile(`^no healthy replica serves`), noReplica},
	{404, regexp.MustCompile(`^The model .* does not exist`), noModel},
}

// ownError judges an answer of lbd's own.
func ownError(a answer) (cause, string) {
	var e struct{ Error struct{ Message string } }
	if a.err != nil || json.Unmarshal(a.body, &e) != nil {
		return wrong, ""
	}
	for _, o := range ownCauses {
		m := o.text.FindStringSubmatch(e.Error.Message)
		switch {
		case m == nil || o.status != a.status:
		case len(m) > 1:
			return o.cause, strings.TrimSuffix(m[1], ":")
		default:
			return o.cause, ""
		}
	}
	return wrong, ""
}
