package sock

import "golang.org/x/sys/unix"

// DelayAcks has the kernel acknowledge what comes on this connection together, as it
// does on connections where question and answer alternate (TCP_QUICKACK 0: "pingpong"
// in net/ipv4/tcp.c), or again each segment as it is read. A segment of its own for
// each event was a fifth of what relaying an event costs.
//
// A peer that holds small segments back until those before are acknowledged (Nagle,
// RFC 896; vLLM's server turns that off) is slowed to a segment per AckDelay by it.
func (c *Conn) DelayAcks(delay bool) {
	quick := 1
	if delay {
		quick = 0
	}
	c.raw.Control(func(fd uintptr) { // fails on a closed connection only
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, quick)
	})
}
