package daemon_test

import (
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkClientLeaves measures the time from a client's close to the moment the
// replica sees its connection closed, before the first byte of the answer and in
// the middle of a stream on which nothing moves: nobody reads or writes anywhere
// when the client leaves.
func BenchmarkClientLeaves(b *testing.B) {
	for _, moment := range []struct {
		name   string
		before string // what the replica has sent by then
	}{{"before_the_first_byte", ""}, {"mid_stream", sseHead + event(" token")}} {
		b.Run(moment.name, func(b *testing.B) {
			var ready atomic.Bool
			arrived, left := make(chan struct{}, 1), make(chan time.Time, 1)
			replica := bareReplica(b, func(nc net.Conn) error {
				if !ready.Load() {
					return small(nc)
				}
				nc.Write([]byte(moment.before))
				arrived <- struct{}{}
				_, err := nc.Read(make([]byte, 1))
				left <- time.Now()
				return err
			})
			lbd := bareLBD(b, replica, smallEnd).RemoteAddr().String()
			ready.Store(true)
			request := bareRequest(smallBody)
			var sum time.Duration
			for range b.N {
				client, err := net.Dial("tcp", lbd)
				if err != nil {
					b.Fatal(err)
				}
				client.Write(request)
				<-arrived
				if moment.before != "" {
					client.Read(make([]byte, 4096))
				}
				began := time.Now()
				client.Close()
				sum += (<-left).Sub(began)
			}
			b.ReportMetric(float64(sum.Microseconds())/float64(b.N), "us/leave")
			b.ReportMetric(0, "ns/op")
		})
	}
}
