package relay

import (
	"strings"
	"testing"
)

// Errors are logged, so they hold nothing of a body: text is what a replica with
// wrong chunk sizes sends where framing is expected.
func TestErrorsHoldNoText(t *testing.T) {
	for _, raw := range []string{
		"secret\r\n", "secret\n", "1secret\r\n", "ffffffffffffffffsecret\r\n", "5\r\nhellosecret", "0\r\nsecret\n", "1;\x00secret\r\n", strings.Repeat("secret", 100),
	} {
		_, _, err := relayed(Chunked, 0, Verbatim, "", []string{raw}, nil)
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%.30q: %v", raw, err)
		}
	}
}
