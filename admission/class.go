package admission

import "fmt"

// Class is the priority of a request. Classes are strict: a request is placed when
// nobody of a higher class waits.
type Class uint8

// The classes.
const (
	High Class = iota
	Normal
	Low
	classes = 3
)

var classNames = [classes]string{High: "high", Normal: "normal", Low: "low"}

// String returns the class as it is configured.
func (c Class) String() string { return classNames[c] }

// ParseClass reads a class.
func ParseClass(text string) (Class, error) {
	for c, name := range classNames {
		if text == name {
			return Class(c), nil
		}
	}
	return Normal, fmt.Errorf("%q is no priority; want high, normal or low", text)
}
