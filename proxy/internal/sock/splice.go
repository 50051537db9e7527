package sock

import (
	"io"
	"net"
	"time"
)

// Splice moves n bytes that come from up to this connection within the kernel. It
// fails when up sends nothing for silence (0 = no limit) or this peer takes none of
// them for its stall time. It is worth its system calls for large bodies only. Where the
// descriptors that it takes are not to be had, it moves nothing and does not fail: the
// bytes can be read and written as usual.
func (c *Conn) Splice(up *Conn, n int64, silence time.Duration) (moved int64, err error) {
	to, end, err := c.native()
	if err != nil {
		return 0, nil // who reads and writes finds out if it is the connection
	}
	defer end()
	from, end, err := up.native()
	if err != nil {
		return 0, nil
	}
	defer end()
	return c.splice(to, from, n, silence)
}

func (c *Conn) splice(to, from *net.TCPConn, n int64, silence time.Duration) (moved int64, err error) {
	for moved < n && err == nil {
		piece := min(n-moved, splicePiece)
		now := time.Now()
		if silence > 0 {
			from.SetReadDeadline(now.Add(silence))
		}
		if c.stall > 0 {
			to.SetWriteDeadline(now.Add(c.stall))
		}
		var m int64
		m, err = to.ReadFrom(&io.LimitedReader{R: from, N: piece})
		if moved += m; err == nil && m < piece {
			err = io.ErrUnexpectedEOF
		}
	}
	if c.stall > 0 {
		to.SetWriteDeadline(time.Time{})
	}
	return moved, err
}

// splicePiece is what has to pass within the time limits, in bytes: at 60 s, 9 KB/s.
const splicePiece = 512 << 10
