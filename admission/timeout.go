package admission

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// ParseTimeout reads how long a client waits for an answer: seconds, as OpenAI's
// clients send them (X-Stainless-Read-Timeout: 600.0), or a Go duration such as
// 500ms. ok is false for what is neither, or not above zero.
func ParseTimeout(text string) (d time.Duration, ok bool) {
	text = strings.TrimSpace(text)
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		if !(seconds > 0) || seconds > math.MaxInt64/2/1e9 {
			return 0, false
		}
		return time.Duration(seconds * 1e9), seconds >= 1e-9
	}
	d, err := time.ParseDuration(text)
	return d, err == nil && d > 0
}
