package sock

import (
	"math"

	"golang.org/x/sys/unix"
)

// Arrived says whether the peer may have received any of the bytes written after
// the first sent bytes of the connection. False is certain: a request that failed
// this way never ran. It is to be asked by the goroutine that read and wrote,
// after both have failed.
//
// It is false only when the peer's FIN was read and what the peer has
// acknowledged does not reach beyond sent. A FIN carries the acknowledgement of
// everything its sender's kernel had received, and a peer that has ended its side
// cannot mean to answer what comes after.
//
// A reset proves nothing: Linux drops the acknowledgement a reset carries
// (tcp_reset comes before tcp_ack), and on a connection that has carried answers
// the acknowledgement of a request is delayed by up to 40 ms (TCP_DELACK_MIN). A
// replica that reads a request and resets within that time looks just as one that
// never saw it; TestArrivedResetWithinDelayedAck shows it. Nor does a timeout:
// the acknowledgements may be what was lost.
func (c *Conn) Arrived(sent int64) bool {
	if !c.ended || c.rdFault || c.wrFault {
		return true
	}
	return c.acked() > sent
}

// acked returns how many bytes the peer's kernel has acknowledged, the largest
// number when that is unknown. tcpi_bytes_acked (RFC 4898
// tcpEStatsAppHCThruOctetsAcked) counts the SYN too, so 0 means a system that does
// not count: Linux before 4.1, gVisor.
func (c *Conn) acked() int64 {
	n := int64(math.MaxInt64)
	err := c.raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil && info.Bytes_acked > 0 {
			n = int64(info.Bytes_acked) - 1
		}
	})
	if err != nil {
		return math.MaxInt64
	}
	return n
}
