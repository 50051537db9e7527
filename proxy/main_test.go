package proxy

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"go.uber.org/goleak"
)

// loopback is where the tests of this process listen: those of other packages, which run at
// the same time, go on asking at ports of 127.0.0.1 that were theirs.
var loopback = ownLoopback()

func ownLoopback() string {
	if runtime.GOOS != "linux" { // where all of 127.0.0.0/8 is this machine's
		return "127.0.0.1:0"
	}
	return fmt.Sprintf("127.%d.%d.%d:0", 64+rand.IntN(128), rand.IntN(256), 1+rand.IntN(254))
}

// fasthttp keeps a clock for its Date header, started by the first answer, for the life
// of the process.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"))
}
