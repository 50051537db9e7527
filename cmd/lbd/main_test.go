package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// TestMain clears the variables that lbd reads, so that the tests do not depend
// on the environment they run in.
func TestMain(m *testing.M) {
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(name, "LBD_") || name == "VLLM_ENDPOINTS" || name == "METRICS_POLL_INTERVAL" {
			os.Unsetenv(name)
		}
	}
	goleak.VerifyTestMain(m)
}

// result is what a user sees of one command line.
type result struct {
	code           int
	stdout, stderr string
}

func lbd(t *testing.T, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), append([]string{}, args...), &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}
