package openai

import (
	"errors"
	"fmt"
)

var (
	// ErrEmpty is an empty body.
	ErrEmpty = errors.New("body is empty")
	// ErrNotObject is a body that starts as something other than a JSON object.
	ErrNotObject = errors.New("body is not a JSON object")
	// ErrEncoding is a body in UTF-16 or UTF-32, or with a byte order mark, or a form in another charset than UTF-8.
	ErrEncoding = errors.New("body is not plain UTF-8: want UTF-8 without a byte order mark")
	// ErrTruncated is matched by every error that says the body ends too early.
	ErrTruncated = errors.New("body ends too early")
	// ErrModelNotString is a model that is a number, a container or an uploaded file. The other fields of the Peek that
	// comes with it hold.
	ErrModelNotString = errors.New("model is not a string")
	// ErrModelText is a model that is a string but not text: bad UTF-8, a bad escape, an unpaired surrogate, a raw control
	// character.
	ErrModelText = errors.New("model is not valid text: want UTF-8 with valid escapes and no control characters")
	// ErrNotForm is a content type other than multipart/form-data with a usable boundary.
	ErrNotForm = errors.New("content type is not multipart/form-data with a boundary")
)

// SyntaxError says where a body stops being what it should be. It matches [ErrTruncated] when the body ends there.
type SyntaxError struct {
	Format string // "JSON" or "multipart/form-data"
	Offset int    // byte offset into the body
	Want   string // what was wanted there
	AtEnd  bool   // the body ends at Offset
}

func (e *SyntaxError) Error() string {
	if e.AtEnd {
		return fmt.Sprintf("body is cut short at byte %d: not %s, want %s", e.Offset, e.Format, e.Want)
	}
	return fmt.Sprintf("body is not %s at byte %d: want %s", e.Format, e.Offset, e.Want)
}

// Unwrap makes errors.Is(err, ErrTruncated) true for a body that ends too early.
func (e *SyntaxError) Unwrap() error {
	if e.AtEnd {
		return ErrTruncated
	}
	return nil
}
