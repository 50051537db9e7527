package proxy

import (
	"testing"

	"go.uber.org/goleak"
)

// fasthttp keeps a clock for its Date header, started by the first answer, for the life
// of the process.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"))
}
