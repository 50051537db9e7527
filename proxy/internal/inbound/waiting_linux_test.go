package inbound

import "golang.org/x/sys/unix"

// bytesWaiting asks how many bytes wait in a socket.
const bytesWaiting = unix.TIOCINQ
