package inbound

import (
	"regexp"
	"strconv"
	"strings"
)

// How a reading of bytes ends, besides the errors of a Conn.
const (
	endClean   = "clean"   // nothing but empty lines behind the last request
	endRefused = "refused" // what comes next is no request or not a whole one
	endBetween = "between" // the bytes end between two chunks, which may pass for clean
)

var (
	refLine        = regexp.MustCompile("^([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) (HTTP/1\\.[01])$")
	refField       = regexp.MustCompile("^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*((?s:.*?))[ \t]*$")
	refHost        = regexp.MustCompile(`^[0-9A-Za-z._~%!$&'()*+,;=:\[\]-]*$`)
	refURL         = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*://[0-9A-Za-z._~%!$&'()*+,;=:\[\]-]+([/?].*)?$`)
	refLength      = regexp.MustCompile(`^[0-9]{1,18}$`)
	refSize        = regexp.MustCompile("^([0-9a-fA-F]{1,15})[ \t]*(;(?s:.*))?$")
	refTrailerName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+:")
	refBad         = regexp.MustCompile("[\x00-\x08\x0a-\x1f\x7f]")
)

// reference reads all requests in s in the plainest way. raw are the bytes of each.
func reference(s string, lim Limits) (reqs []got, raw []string, end string) {
	for {
		blanks := 0
		for ; strings.HasPrefix(s, "\r\n"); blanks++ {
			s = s[2:]
		}
		if blanks > 8 {
			return reqs, raw, endRefused
		}
		if s == "" {
			return reqs, raw, endClean
		}
		g, rest, bad := refRequest(s, lim)
		if bad != "" {
			return reqs, raw, bad
		}
		reqs, raw = append(reqs, g), append(raw, s[:len(s)-len(rest)])
		s = rest
	}
}

func refRequest(s string, lim Limits) (g got, rest, bad string) {
	head, rest, ok := strings.Cut(s, "\r\n\r\n")
	if !ok || len(head)+4 > lim.Head {
		return g, "", endRefused
	}
	lines := strings.Split(head, "\r\n")
	for _, l := range lines {
		if strings.ContainsAny(l, "\r\n") {
			return g, "", endRefused
		}
	}
	m := refLine.FindStringSubmatch(lines[0])
	if m == nil || len(lines)-1 > maxFields {
		return g, "", endRefused
	}
	g.Method, g.Target, g.Version = m[1], m[2], m[3]
	url := refURL.MatchString(g.Target) || g.Target[0] == '/'
	if !(url || g.Method == "CONNECT" || g.Method == "OPTIONS" && g.Target == "*") || strings.Contains(g.Target, "#") {
		return g, "", endRefused
	}
	fields := map[string][]string{}
	for _, l := range lines[1:] {
		f := refField.FindStringSubmatch(l)
		if f == nil || refBad.MatchString(f[2]) {
			return g, "", endRefused
		}
		g.Fields += f[1] + "=" + f[2] + "\n"
		name := strings.ToLower(f[1])
		fields[name] = append(fields[name], f[2])
	}
	if ct := fields["content-type"]; ct != nil {
		g.ContentType = ct[0]
	}
	old := g.Version == "HTTP/1.0"
	hosts := fields["host"]
	if len(hosts) > 1 || len(hosts) == 0 && !old || len(hosts) == 1 && !refHost.MatchString(hosts[0]) {
		return g, "", endRefused
	}
	connection := map[string]bool{}
	for _, item := range strings.Split(strings.Join(fields["connection"], ","), ",") {
		connection[strings.ToLower(strings.Trim(item, " \t"))] = true
	}
	g.Close = connection["close"] || old && !connection["keep-alive"]
	length, coding := fields["content-length"], fields["transfer-encoding"]
	switch {
	case len(length)+len(coding) == 0:
		return g, rest, ""
	case len(length)+len(coding) > 1:
		return g, "", endRefused
	case len(coding) == 1:
		if old || strings.ToLower(coding[0]) != "chunked" {
			return g, "", endRefused
		}
		g.Body, rest, bad = refChunks(rest, lim)
		return g, rest, bad
	case !refLength.MatchString(length[0]):
		return g, "", endRefused
	}
	n, _ := strconv.Atoi(length[0])
	if n > lim.Body || n > len(rest) {
		return g, "", endRefused
	}
	g.Body = rest[:n]
	return g, rest[n:], ""
}

func refChunks(s string, lim Limits) (body, rest, bad string) {
	over := 0
	for {
		if s == "" {
			return "", "", endBetween
		}
		line, after, ok := strings.Cut(s, "\r\n")
		m := refSize.FindStringSubmatch(line)
		if !ok || m == nil || refBad.MatchString(m[2]) || len(line)+2 > 512 {
			return "", "", endRefused
		}
		n, _ := strconv.ParseInt(m[1], 16, 64)
		if over = max(0, over+len(line)+4-16-2*int(min(n, 1<<20))); over > 16<<10 {
			return "", "", endRefused
		}
		if n == 0 {
			rest, bad = refTrailer(after)
			return body, rest, bad
		}
		if n+2 > int64(len(after)) || after[n:n+2] != "\r\n" || len(body)+int(n) > lim.Body {
			return "", "", endRefused
		}
		body, s = body+after[:n], after[n+2:]
	}
}

func refTrailer(s string) (rest, bad string) {
	size := 0
	for {
		line, after, ok := strings.Cut(s, "\n")
		size += len(line) + 1
		switch {
		case !ok || !strings.HasSuffix(line, "\r") || size > 16<<10:
			return "", endRefused
		case line == "\r":
			return after, ""
		case !refTrailerName.MatchString(line) || refBad.MatchString(line[:len(line)-1]):
			return "", endRefused
		}
		s = after
	}
}
