package config

import (
	"slices"
	"strings"
	"time"

	"lbd/balancer"
)

// key is one row of the table: all that is known about one configuration key.
type key struct {
	name   string
	group  string // heading in lbd --help and in the example file
	def    string // default, as a user would write it
	help   string // one line, for the flag
	more   string // what else a reader of the example file should know
	reload bool   // a reload applies a new value; else a restart is needed
	alias  string // a second variable, which the LBD_ one beats
	oneOf  []string
	zero   bool  // 0 is allowed although below min
	min    int64 // smallest value: ns, bytes or a count
	max    int64
	check  func(string) (string, error)
	field  func(*Config) any // pointer to the field; its type is the type of the key
}

func (k *key) flag() string { return strings.ReplaceAll(k.name, "_", "-") }
func (k *key) env() string  { return envPrefix + strings.ToUpper(k.name) }

// blank is the Config that the types of keys are read from. A new one for each look
// would be 3 MB of garbage a reload, since every variable of the environment is held
// against every key.
var blank Config

// scalar tells whether the key has a flag and a variable. Models alone is too
// deep for either.
func (k *key) scalar() bool {
	_, isModels := k.field(&blank).(*[]Model)
	return !isModels
}

// secret tells whether the value must not be shown.
func (k *key) secret() bool {
	_, is := k.field(&blank).(*Secret)
	return is
}

// kind is the word for the type of the value in --help.
func (k *key) kind() string {
	switch k.field(&blank).(type) {
	case *bool:
		return "bool"
	case *int:
		return "number"
	case *Size:
		return "size"
	case *time.Duration:
		return "duration"
	case *[]balancer.Endpoint:
		return "URL,..."
	case *[]string:
		return "NAME,..."
	case *[]Model:
		return "list"
	case *Secret:
		return "secret"
	default:
		if k.oneOf != nil {
			return strings.Join(k.oneOf, "|")
		}
		return "string"
	}
}

// Headings of the table, in the order of the table.
const (
	groupListen   = "Listeners"
	groupAccess   = "Clients' keys and what is said of clients"
	groupFleet    = "Replicas, models and strategy"
	groupAffinity = "Sessions"
	groupOutward  = "Keys and TLS towards replicas"
	groupPoll     = "Polling"
	groupLimits   = "Limits"
	groupTimeouts = "Timeouts"
	groupHealth   = "Retries and health"
	groupWaiting  = "Admission: waiting in front of a saturated model"
	groupLog      = "Logging, token metrics and response headers"
)

const (
	ms   = int64(time.Millisecond)
	sec  = int64(time.Second)
	hour = int64(time.Hour)
	week = 7 * 24 * hour
)

// keyNames lists the keys of the file in the order of the table.
var keyNames = func() (names []string) {
	for _, k := range keys {
		names = append(names, k.name)
	}
	return names
}()

func keyByName(name string) *key {
	for _, k := range keys {
		if k.name == name {
			return k
		}
	}
	return nil
}

// configFlag names the file; it is no key of the file itself.
const (
	configFlag = "config"
	configEnv  = envPrefix + "CONFIG"
	envPrefix  = "LBD_"
)

// keys is the table; its parts are in keys_*.go. A new key is one row there and one field in
// Config.
//
// A key is marked reload where the owner of the value can take a new one while
// requests run. Sockets, the limits of the server on them (fasthttp reads its own
// without a lock) and the writer of the log are made once.
var keys = slices.Concat(
	listenKeys, accessKeys, fleetKeys, affinityKeys, outwardKeys, pollKeys,
	limitsKeys, timeoutsKeys, healthKeys, waitingKeys, logKeys,
)
