package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Source is a layer of the configuration.
type Source int

// The layers, in the order in which one beats the one before.
const (
	FromDefault Source = iota
	FromFile
	FromEnv
	FromFlag
)

// Origin says where a value came from.
type Origin struct {
	Source Source
	Name   string // path of the file, name of the variable, or name of the flag without dashes
	Line   int    // line in the file, from 1
}

// String returns the origin as lbd config prints it.
func (o Origin) String() string {
	switch o.Source {
	case FromFile:
		return "file " + o.place()
	case FromEnv:
		return "env " + o.Name
	case FromFlag:
		return "flag " + o.place()
	default:
		return "default"
	}
}

// place is the origin as an error message begins with it.
func (o Origin) place() string {
	switch o.Source {
	case FromFile:
		if o.Line == 0 {
			return printable(o.Name)
		}
		return printable(o.Name) + ":" + strconv.Itoa(o.Line)
	case FromEnv:
		return o.Name
	case FromFlag:
		return "--" + o.Name
	default:
		return ""
	}
}

// printable quotes a path that would break a comment or an error over lines.
func printable(path string) string {
	if quoted := strconv.Quote(path); quoted != `"`+path+`"` {
		return quoted
	}
	return path
}

// Error is one mistake in the configuration.
type Error struct {
	Origin Origin
	Key    string // dotted path of the key in the file, such as models[0].name
	Msg    string
}

// Error returns, for a file, "FILE:LINE: KEY: MESSAGE"; a variable or flag is
// its own place and key.
func (e *Error) Error() string {
	parts := make([]string, 0, 3)
	if place := e.Origin.place(); place != "" {
		parts = append(parts, place)
	}
	if e.Key != "" && e.Origin.Source <= FromFile {
		parts = append(parts, e.Key)
	}
	return strings.Join(append(parts, e.Msg), ": ")
}

// Errors is every mistake in one configuration, in the order file, environment,
// flags.
type Errors []*Error

// Error returns one mistake per line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// sorted orders the errors as a reader works through them: by layer, then by
// line. Errors of the whole (default origin) come last.
func (e Errors) sorted() Errors {
	rank := func(x *Error) int {
		if x.Origin.Source == FromDefault {
			return int(FromFlag) + 1
		}
		return int(x.Origin.Source)
	}
	slices.SortStableFunc(e, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Origin.Line, b.Origin.Line))
	})
	return e
}

func (l *loader) fail(o Origin, key, format string, args ...any) {
	l.errs = append(l.errs, &Error{Origin: o, Key: key, Msg: fmt.Sprintf(format, args...)})
}
