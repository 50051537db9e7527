//go:build !linux

package inbound

// bytesWaiting asks how many bytes wait in a socket: FIONREAD of the BSDs
// (sys/filio.h), which x/sys does not name.
const bytesWaiting = 0x4004667f
