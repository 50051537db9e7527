package openai

import "bytes"

// disposition is what the Content-Disposition header of a part says.
type disposition struct {
	name  []byte
	file  bool // has a filename
	given bool
}

// headers reads the headers of a part and the empty line behind them.
func (r *formReader) headers(d *disposition) bool {
	for {
		if r.i < len(r.b) && r.b[r.i] == '\r' {
			if !r.lineBreak("an empty line behind the headers") {
				return false
			}
			return d.name != nil || r.fail("a Content-Disposition with a name before the content")
		}
		start := r.i
		if !r.headerName() {
			return false
		}
		name := r.b[start:r.i]
		r.i++
		start = r.i
		r.headerValue()
		value := r.b[start:r.i]
		if !r.lineBreak("a line break behind the header") {
			return false
		}
		if keyIs(name, "content-disposition") && !r.disposition(d, start, value) {
			return false
		}
	}
}

// headerName steps to the colon behind the name of a header.
func (r *formReader) headerName() bool {
	start := r.i
	for r.i < len(r.b) && isToken(r.b[r.i]) {
		r.i++
	}
	if r.i == start || r.i == len(r.b) || r.b[r.i] != ':' {
		return r.fail("the name of a header and a colon")
	}
	return true
}

// headerValue steps to the first byte that cannot stand in the value of a header. A bare line feed cannot: python-multipart
// reads on behind it, others do not.
func (r *formReader) headerValue() {
	for r.i < len(r.b) && (r.b[r.i] >= ' ' || r.b[r.i] == '\t') {
		r.i++
	}
}

// disposition reads the value of a Content-Disposition header that begins at start.
func (r *formReader) disposition(d *disposition, start int, value []byte) bool {
	if d.given {
		r.i = start
		return r.fail("one Content-Disposition only")
	}
	d.given = true
	ps := params{rest: value}
	// starlette takes any disposition, other readers of forms only this one, which RFC 7578 section 4.2 asks for.
	if !keyIs(ps.first(), "form-data") {
		ps.bad = true
	}
	for ps.next() {
		switch {
		case keyIs(ps.key, "name"):
			if d.name != nil || !plainName(ps.value, ps.quoted) {
				ps.bad = true
			}
			d.name = ps.value
		case keyIs(ps.key, "filename"), extended(ps.key, "filename"):
			d.file = true
		case extended(ps.key, "name"):
			ps.bad = true
		}
	}
	if ps.bad {
		r.i = start
		return r.fail(`a Content-Disposition like form-data; name="model"`)
	}
	return true
}

// plainName reports whether the name of a field reads the same to everyone: a token or a quoted string in which a
// backslash stands before a quote or another backslash only (python-multipart keeps all others, RFC 9110 drops them).
func plainName(name []byte, quoted bool) bool {
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case !quoted && !isToken(c):
			return false
		case c == '\\':
			i++
			if i == len(name) || name[i] != '"' && name[i] != '\\' {
				return false
			}
		}
	}
	return name != nil
}

// params steps over the parameters of a header value such as: form-data; name="model"; filename=x.wav
type params struct {
	rest   []byte
	key    []byte
	value  []byte // without its quotes, escapes left as they are; never nil after next
	quoted bool
	bad    bool // the value has no such form
}

// first is what precedes the parameters.
func (p *params) first() []byte {
	n := bytes.IndexByte(p.rest, ';')
	if n < 0 {
		n = len(p.rest)
	}
	v := p.rest[:n]
	p.rest = p.rest[n:]
	return bytes.Trim(v, " \t")
}

// next steps to the next parameter, and reports whether there is one.
func (p *params) next() bool {
	p.rest = bytes.TrimLeft(p.rest, " \t")
	if p.bad || len(p.rest) == 0 {
		return false
	}
	if p.rest[0] != ';' {
		p.bad = true
		return false
	}
	p.rest = bytes.TrimLeft(p.rest, "; \t") // empty parameters are allowed: RFC 9110 section 5.6.6
	if len(p.rest) == 0 {
		return false
	}
	return p.splitKey() && p.splitValue()
}

// splitKey takes the key and the equals sign.
func (p *params) splitKey() bool {
	n := bytes.IndexByte(p.rest, '=')
	if n <= 0 {
		p.bad = true
		return false
	}
	p.key = bytes.TrimRight(p.rest[:n], " \t")
	p.rest = bytes.TrimLeft(p.rest[n+1:], " \t")
	for _, c := range p.key {
		p.bad = p.bad || !isToken(c)
	}
	return !p.bad
}

// splitValue takes the value: a quoted string, or what precedes the next semicolon.
func (p *params) splitValue() bool {
	p.quoted = len(p.rest) > 0 && p.rest[0] == '"'
	if p.quoted {
		return p.splitQuoted()
	}
	n := bytes.IndexByte(p.rest, ';')
	if n < 0 {
		n = len(p.rest)
	}
	p.value = bytes.TrimRight(p.rest[:n:n], " \t")
	p.rest = p.rest[n:]
	p.bad = bytes.IndexByte(p.value, '"') >= 0
	return !p.bad
}

func (p *params) splitQuoted() bool {
	for i := 1; i < len(p.rest); i++ {
		switch p.rest[i] {
		case '\\':
			i++
		case '"':
			p.value = p.rest[1:i:i]
			p.rest = p.rest[i+1:]
			return true
		}
	}
	p.bad = true
	return false
}

// keyIs compares case-insensitively; key is lower case.
func keyIs(b []byte, key string) bool {
	if len(b) != len(key) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != key[i] {
			return false
		}
	}
	return true
}

// extended reports whether b is an RFC 2231 form of key: key*, key*0, key*0*.
func extended(b []byte, key string) bool {
	n := bytes.IndexByte(b, '*')
	return n >= 0 && keyIs(b[:n], key)
}

// isToken reports whether c may stand in a token: RFC 9110 section 5.6.2.
func isToken(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), c) >= 0
}
