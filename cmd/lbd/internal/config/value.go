package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"lbd/access/cors"
	"lbd/access/forwarded"
	"lbd/admission"
	"lbd/balancer"
)

// Size is a number of bytes.
type Size int64

var sizeUnits = []struct {
	name  string
	bytes int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// String returns the size in the largest unit that divides it.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if n := int64(s); n != 0 && n%u.bytes == 0 && u.bytes > 1 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// parse reads the text of a value of this key, whatever layer it came from.
// The error is what is wrong and what is wanted, without the place.
func (k *key) parse(text string) (any, error) {
	switch k.field(&blank).(type) {
	case *string:
		return k.parseString(text)
	case *Secret:
		return parseSecret(text)
	case *bool:
		return parseBool(text)
	case *int:
		return k.parseInt(text)
	case *Size:
		return k.parseSize(text)
	case *time.Duration:
		return k.parseDuration(text)
	default:
		panic("BUG: key " + k.name + " is no scalar")
	}
}

func (k *key) parseString(text string) (string, error) {
	if k.oneOf != nil && !slices.Contains(k.oneOf, text) {
		return "", oneOfError(text, k.oneOf)
	}
	if k.check != nil {
		return k.check(text)
	}
	return text, nil
}

func oneOfError(text string, allowed []string) error {
	last := len(allowed) - 1
	want := strings.Join(allowed[:last], ", ") + " or " + allowed[last]
	if last == 0 {
		want = allowed[0]
	}
	return fmt.Errorf("%q is unknown; want %s", text, want)
}

// parseSecret keeps the value out of its own error. A control character in it
// would end the header line it is sent in.
func parseSecret(text string) (Secret, error) {
	if text == redacted {
		return "", errors.New("is the placeholder that lbd config prints; want the secret itself")
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", errors.New("contains a control character; want one line of text")
	}
	return Secret(text), nil
}

func parseBool(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, fmt.Errorf("%q is not a boolean; want true or false", text)
}

func (k *key) parseInt(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("%q is not a whole number; want %s", text, k.wantRange(strconv.Itoa(int(k.min)), strconv.Itoa(int(k.max))))
	}
	if int64(n) < k.min || int64(n) > k.max {
		return 0, fmt.Errorf("%q is out of range; want %s", text, k.wantRange(strconv.Itoa(int(k.min)), strconv.Itoa(int(k.max))))
	}
	return n, nil
}

func (k *key) wantRange(least, most string) string { return "between " + least + " and " + most }

func (k *key) parseSize(text string) (Size, error) {
	digits, factor := text, int64(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(strings.ToLower(text), strings.ToLower(u.name)); ok {
			digits, factor = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a size; want bytes or a size such as 512KiB, 64MiB or 1GiB", text)
	}
	if n < 0 || n > math.MaxInt64/factor || n*factor < k.min || n*factor > k.max {
		return 0, fmt.Errorf("%q is out of range; want %s", text, k.wantRange(Size(k.min).String(), Size(k.max).String()))
	}
	return Size(n * factor), nil
}

// bareNumber is what counts as seconds. Signs, exponents and the words inf and
// nan, all of which strconv would take, are not in it.
var bareNumber = regexp.MustCompile(`^([0-9]+\.?[0-9]*|\.[0-9]+)$`)

func (k *key) parseDuration(text string) (time.Duration, error) {
	full := text
	if bareNumber.MatchString(text) {
		full += "s"
	}
	d, err := time.ParseDuration(full)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration; want a Go duration such as 500ms or a bare number of seconds", text)
	}
	if d == 0 && k.zero {
		return 0, nil
	}
	if int64(d) < k.min || int64(d) > k.max {
		want := k.wantRange(formatDuration(time.Duration(k.min)), formatDuration(time.Duration(k.max)))
		if k.zero {
			want = "0 or " + want
		}
		return 0, fmt.Errorf("%q is out of range; want %s", text, want)
	}
	return d, nil
}

// formatDuration writes a duration as people do: 75s and 5m, where
// time.Duration.String has 1m15s and 5m0s.
func formatDuration(d time.Duration) string {
	if d == 0 {
		return "0"
	}
	if d%time.Second == 0 && d < 2*time.Minute {
		return strconv.FormatInt(int64(d/time.Second), 10) + "s"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// checkListen takes what net.Listen takes, without service names: a port number
// is never looked up.
func checkListen(text string) (string, error) {
	bad := fmt.Errorf("%q is not a listen address; want HOST:PORT or :PORT, such as 127.0.0.1:8080", text)
	host, port, err := net.SplitHostPort(text)
	if err != nil || strings.ContainsAny(host, " /@") {
		return "", bad
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", bad
	}
	return text, nil
}

// checkAdminListen also takes "off", because an empty variable counts as unset
// and could not turn the listener off.
func checkAdminListen(text string) (string, error) {
	if text == "" || text == "off" {
		return "", nil
	}
	return checkListen(text)
}

// checkOrigin and checkNetwork are for elements of lists.
func checkOrigin(text string) (string, error) {
	_, err := cors.New([]string{text})
	return text, err
}

func checkNetwork(text string) (string, error) {
	_, err := forwarded.ParseNetwork(text)
	return text, err
}

// checkHeaderName takes a field name of RFC 9110 section 5.1; empty is none.
func checkHeaderName(text string) (string, error) {
	bad := strings.ContainsFunc(text, func(r rune) bool {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
		return !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
	if bad {
		return "", fmt.Errorf("%q is not the name of a header; want one such as X-Client-Id", text)
	}
	return text, nil
}

// noSession are headers that are new with each request or the same with all.
var noSession = []string{"connection", "content-length", "content-type", "host", "transfer-encoding", "x-request-id"}

func checkSessionHeader(text string) (string, error) {
	if slices.Contains(noSession, strings.ToLower(text)) {
		return "", fmt.Errorf("%q does not name a session; want a header such as X-Session-ID", text)
	}
	return checkHeaderName(text)
}

func checkSessionField(text string) (string, error) {
	if want := []string{"prompt_cache_key", "user"}; !slices.Contains(want, text) {
		return "", oneOfError(text, want)
	}
	return text, nil
}

func checkPriority(text string) (string, error) {
	name, class, ok := strings.Cut(text, "=")
	if !ok || name == "" {
		return "", fmt.Errorf("%q is not NAME=CLASS; want a client and high, normal or low, such as batch=low", text)
	}
	_, err := admission.ParseClass(class)
	return text, err
}

func checkPath(text string) (string, error) {
	if !strings.HasPrefix(text, "/") || strings.ContainsFunc(text, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || r == '?' || r == '#'
	}) {
		return "", fmt.Errorf("%q is not a path; want one such as /health, without a query", text)
	}
	return text, nil
}

// parseEndpoint reads one endpoint. Whatever stands before an @ may be a
// password and is never quoted.
func parseEndpoint(text string) (balancer.Endpoint, error) {
	if at := strings.LastIndexByte(text, '@'); at >= 0 {
		return balancer.Endpoint{}, fmt.Errorf("%q carries user info; want http://host:port, and replica_api_key for replicas that ask for a key", "..."+text[at:])
	}
	u, err := url.Parse(text)
	each := false
	if err == nil {
		u.Scheme, each = strings.CutPrefix(u.Scheme, "dns+")
	}
	switch {
	case each && u.Scheme != "http" && u.Scheme != "https":
		return balancer.Endpoint{}, fmt.Errorf("%q is not an endpoint; want dns+http://name:port[/prefix] or dns+https:// for every address of a name", text)
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return balancer.Endpoint{}, fmt.Errorf("%q is not an endpoint; want http://host:port[/prefix] or https://", text)
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(text, "#"):
		return balancer.Endpoint{}, fmt.Errorf("%q carries a query or a fragment; want http://host:port[/prefix]", text)
	}
	if n, err := strconv.ParseUint(u.Port(), 10, 16); strings.HasSuffix(u.Host, ":") || u.Port() != "" && (err != nil || n == 0) {
		return balancer.Endpoint{}, fmt.Errorf("%q has no valid port; want a number between 1 and 65535", text)
	}
	if each {
		if _, err := netip.ParseAddr(u.Hostname()); err == nil {
			return balancer.Endpoint{}, fmt.Errorf("%q has an address where a name is to be looked up; want dns+http://name:port, or %s:// for one address", text, u.Scheme)
		}
		u.Scheme = "dns+" + u.Scheme
	}
	u.Host = strings.ToLower(u.Host)
	e, err := balancer.ParseEndpoint(u.String())
	if err != nil {
		return balancer.Endpoint{}, fmt.Errorf("%q is not an endpoint; want http://host:port[/prefix]", text)
	}
	return e, nil
}

// id is what tells two endpoints apart: the ID that balancer gives a replica
// there.
func id(e balancer.Endpoint) string { return balancer.NewReplica(e, "", 1).ID }
