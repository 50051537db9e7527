package poll

import "testing"

func TestIsExposition(t *testing.T) {
	for page, want := range map[string]bool{
		"":                                  true, // a V0 server before its first step
		"\n\n":                              true,
		"# HELP x y\n# TYPE x gauge\nx 1\n": true,
		"process_cpu_seconds_total 1.5 1700000000000\n":          true,
		"http_requests_total{handler=\"/x\",status=\"2xx\"} 3\n": true,
		"<html><body>502 Bad Gateway</body></html>\n":            false,
		"{\"detail\":\"Not Found\"}":                             false,
		"not a page of metrics at all":                           false,
		"\x00\xff\xfe\n":                                         false,
		"x{broken=\"1} 2\n":                                      false,
	} {
		if got := isExposition([]byte(page)); got != want {
			t.Errorf("%q: %t; want %t", page, got, want)
		}
	}
}

// Lines of ours that cannot be read are noticed; those of others are not our
// business.
func TestScanCountsUnreadableLines(t *testing.T) {
	var p page
	for text, want := range map[string]int{
		"vllm:num_requests_running{e=\"0\"} 3\n":    0,
		"vllm:num_requests_running{e=\"0} 3\n":      1,
		"vllm:num_requests_waiting{e=\"0\"} many\n": 1,
		"other{e=\"0} many\n":                       0,
	} {
		if p.scan([]byte(text)); p.unreadable != want {
			t.Errorf("%q: %d unreadable; want %d", text, p.unreadable, want)
		}
	}
}
