package keys

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Digest is the SHA-256 of a key.
type Digest [sha256.Size]byte

// DigestOf hashes a key.
func DigestOf(key string) Digest { return sha256.Sum256([]byte(key)) }

// String returns the digest as the file has it.
func (d Digest) String() string { return digestPrefix + hex.EncodeToString(d[:]) }

const digestPrefix = "sha256:"

// Prefix begins every generated key, so that scanners of source code and people
// see what it is.
const Prefix = "lbd-"

// Generate returns a new key: 256 random bits.
func Generate() string {
	var raw [32]byte
	rand.Read(raw[:]) // never fails (Go 1.24)
	return Prefix + base64.RawURLEncoding.EncodeToString(raw[:])
}

// MinLength is the fewest bytes a key may have. It stands for 120 bits in base64,
// which nobody can try out; see the package comment.
const MinLength = 20

// maxLength bounds what is hashed for a client that nobody knows yet.
const maxLength = 512

// CheckKey says what is wrong with a key that was not generated here, without
// quoting it.
func CheckKey(key string) error {
	switch {
	case len(key) < MinLength:
		return fmt.Errorf("the key has %d characters; want at least %d random ones, such as lbd key makes", len(key), MinLength)
	case len(key) > maxLength:
		return fmt.Errorf("the key has %d characters; want at most %d", len(key), maxLength)
	case strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return errors.New("the key contains a space, a control character or is not ASCII; want letters, digits and -._~+/=")
	}
	return nil
}

// Limits are what one client may use. 0 is no limit.
type Limits struct {
	// Models are names, or beginnings of names that end in *; none = all.
	Models            []string
	MaxInFlight       int64
	RequestsPerMinute int64
	TokensPerMinute   int64
}

func (l Limits) equal(o Limits) bool {
	return slices.Equal(l.Models, o.Models) && l.MaxInFlight == o.MaxInFlight &&
		l.RequestsPerMinute == o.RequestsPerMinute && l.TokensPerMinute == o.TokensPerMinute
}

// Entry is one key with its client.
type Entry struct {
	Name   string
	Digest Digest
	Limits
}

// String returns the line of the file.
func (e Entry) String() string {
	var b strings.Builder
	b.WriteString(e.Name + " " + e.Digest.String())
	if len(e.Models) > 0 {
		b.WriteString(" " + optionModels + "=" + strings.Join(e.Models, ","))
	}
	for _, o := range counts(&e.Limits) {
		if *o.field > 0 {
			fmt.Fprintf(&b, " %s=%d", o.name, *o.field)
		}
	}
	return b.String()
}

const optionModels = "models"

type count struct {
	name  string
	field *int64
}

func counts(l *Limits) []count {
	return []count{
		{"max_in_flight", &l.MaxInFlight},
		{"requests_per_minute", &l.RequestsPerMinute},
		{"tokens_per_minute", &l.TokensPerMinute},
	}
}

// maxLimit keeps a bucket's arithmetic within 63 bits; see price.
const maxLimit = 1_000_000_000

// MaxKeys bounds a file.
const MaxKeys = 100_000

// ParseFile reads the lines of a file. Errors name the line and quote nothing that
// may be a key.
func ParseFile(text string) ([]Entry, error) {
	return parse(strings.Split(strings.TrimPrefix(text, "\ufeff"), "\n"), "line", false)
}

// ParseValue reads the value of a variable: the same, with ; where a file has the
// end of a line. With plain, an entry may give the key itself in place of its
// hash, as an environment that is a secret may.
func ParseValue(text string, plain bool) ([]Entry, error) {
	return parse(strings.FieldsFunc(text, func(r rune) bool { return r == ';' || r == '\n' }), "entry", plain)
}

func parse(lines []string, unit string, plain bool) (entries []Entry, err error) {
	var faults []error
	for i, line := range lines {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		e, err := parseEntry(fields, plain)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s %d: %w", unit, i+1, err))
		}
		entries = append(entries, e)
	}
	if len(faults) == 0 {
		err = CheckEntries(entries)
		return entries, err
	}
	return nil, errors.Join(faults...)
}

// CheckEntries says what is wrong between entries.
func CheckEntries(entries []Entry) error {
	if len(entries) > MaxKeys {
		return fmt.Errorf("%d keys; want at most %d", len(entries), MaxKeys)
	}
	limits, owner := map[string]Limits{}, map[Digest]string{}
	for _, e := range entries {
		if l, known := limits[e.Name]; known && !l.equal(e.Limits) {
			return fmt.Errorf("two entries named %q have different limits; want the same, since they share them", e.Name)
		}
		if name, known := owner[e.Digest]; known {
			return fmt.Errorf("%q and %q have the same key; want one entry per key", name, e.Name)
		}
		limits[e.Name], owner[e.Digest] = e.Limits, e.Name
	}
	return nil
}

func parseEntry(fields []string, plain bool) (e Entry, err error) {
	if len(fields) < 2 {
		return e, fmt.Errorf("has one word; want NAME %sHASH, as lbd key prints it", digestPrefix)
	}
	if err := CheckName(fields[0]); err != nil {
		return e, err
	}
	e.Name = fields[0]
	if e.Digest, err = parseDigest(fields[1], plain); err != nil {
		return e, err
	}
	for _, option := range fields[2:] {
		if err := e.setOption(option); err != nil {
			return e, err
		}
	}
	return e, nil
}

// reserved are labels of series that belong to no key.
var reserved = []string{"none", "other"}

// CheckName says whether a name can be shown in logs and metrics. It is not
// quoted: somebody may have put the key first.
func CheckName(name string) error {
	bad := strings.ContainsFunc(name, func(r rune) bool {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
		return !letter && !strings.ContainsRune("._@-", r)
	})
	if bad || name == "" || len(name) > 64 || slices.Contains(reserved, name) || strings.HasPrefix(name, Prefix) && len(name) >= MinLength {
		return errors.New("has no valid name; want up to 64 letters, digits and ._@- in front of the hash, and not none or other")
	}
	return nil
}

func parseDigest(text string, plain bool) (d Digest, err error) {
	digits, ok := strings.CutPrefix(text, digestPrefix)
	if !ok {
		if plain {
			return DigestOf(text), CheckKey(text)
		}
		return d, fmt.Errorf("has no %sHASH behind the name; want the hash and not the key: lbd key --stdin hashes one", digestPrefix)
	}
	raw, err := hex.DecodeString(digits)
	if err != nil || len(raw) != len(d) {
		return d, fmt.Errorf("the hash is not %d hexadecimal digits", 2*len(d))
	}
	copy(d[:], raw)
	return d, nil
}

func (e *Entry) setOption(option string) error {
	name, value, ok := strings.Cut(option, "=")
	if !ok {
		return errors.New("has a word that is not NAME=VALUE behind the hash")
	}
	if name == optionModels {
		return e.addModels(value)
	}
	var names []string
	for _, o := range counts(&e.Limits) {
		if o.name != name {
			names = append(names, o.name)
			continue
		}
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n < 1 || n > maxLimit {
			return fmt.Errorf("%s is %s; want a number between 1 and %d, or leave it out for no limit", name, shown(value), maxLimit)
		}
		*o.field = n
		return nil
	}
	return fmt.Errorf("unknown limit %s; want %s or %s", shown(name), optionModels, strings.Join(names, ", "))
}

func (e *Entry) addModels(value string) error {
	for model := range strings.SplitSeq(value, ",") {
		if model == "" || strings.Contains(strings.TrimSuffix(model, "*"), "*") {
			return fmt.Errorf("%s is %q; want names with commas between them, a * only at the end of one", optionModels, clip(value))
		}
		e.Models = append(e.Models, model)
	}
	return nil
}

// shown quotes a word that is too short to be a key. What stands behind the hash may
// be one, and one in base64 may end in =.
func shown(s string) string {
	if len(s) >= MinLength {
		return fmt.Sprintf("of %d characters", len(s))
	}
	return strconv.Quote(s)
}

// clip bounds what an error repeats.
func clip(s string) string { return s[:min(len(s), 64)] }
