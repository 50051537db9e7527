package admission

import "fmt"

// Class is the priority of a request. Classes are strict: a request is placed when
// nobody of a higher class waits. The zero value is Normal.
type Class int8

// The classes, the highest first.
const (
	High Class = iota - 1
	Normal
	Low
	classes = 3
)

var classNames = [classes]string{"high", "normal", "low"}

// lane is the place of the class in an array of all, the highest first.
func (c Class) lane() int { return int(c - High) }

// String returns the class as it is configured.
func (c Class) String() string { return classNames[c.lane()] }

// ParseClass reads a class.
func ParseClass(text string) (Class, error) {
	for i, name := range classNames {
		if text == name {
			return High + Class(i), nil
		}
	}
	return Normal, fmt.Errorf("%q is no priority; want high, normal or low", text)
}
