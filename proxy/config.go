package proxy

import (
	"time"

	"lbd/access/cors"
	"lbd/access/forwarded"
)

// Config holds the limits of the data plane. Those marked start need a restart;
// the rest apply to the next request.
type Config struct {
	MaxBody   int // bytes of a request body
	MaxHeader int // bytes of a request head; start

	Connections Connections

	ClientIdle  time.Duration // keep-alive between requests; start
	ClientRead  time.Duration // head and body of one request; start
	ClientWrite time.Duration // a client that takes no byte so long is dropped; start

	Connect      time.Duration // to a replica, name look-up included
	FirstByte    time.Duration // from the request's end to the first body byte
	Silence      time.Duration // between two bytes of a response
	UpstreamIdle time.Duration // keep-alive to replicas

	MaxAttempts     int  // replicas tried for one request
	ResponseHeaders bool // X-Lbd-Replica and X-Lbd-Strategy

	AccessLog       bool
	AccessLogSample int // one line in so many requests
	// AccessLogPrefixes adds hashes of the prompt's leading blocks to each line.
	AccessLogPrefixes bool

	NoTokenMetrics bool // answers are not read for tokens and usage, but where a key's account needs it

	Admission Admission

	MetricsAccess string            // one of the words below MetricsOpen; "" = MetricsOpen
	CORS          *cors.Policy      // nil = lbd has no say
	Forwarded     *forwarded.Policy // nil = as clients sent it
}

func (c Config) filled() Config {
	if c.Forwarded == nil {
		c.Forwarded = passOn
	}
	return c
}

var passOn = func() *forwarded.Policy {
	p, err := forwarded.New(forwarded.Pass, nil)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return p
}()
