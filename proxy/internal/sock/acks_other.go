//go:build !linux

package sock

// DelayAcks cannot be had on this system.
func (c *Conn) DelayAcks(bool) {}
