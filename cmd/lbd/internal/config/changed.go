package config

import "reflect"

// Changed compares two configurations for a reload: the keys with a new value
// that the reload applies, and those that only a restart would apply.
func Changed(old, new *Config) (applied, needRestart []string) {
	for _, k := range keys {
		if reflect.DeepEqual(k.field(old), k.field(new)) {
			continue
		}
		if k.reload {
			applied = append(applied, k.name)
		} else {
			needRestart = append(needRestart, k.name)
		}
	}
	return applied, needRestart
}

// Reloaded returns what is in force after next was applied to a running old:
// next, but for the keys that only a restart applies.
func Reloaded(old, next *Config) *Config {
	c := *next
	c.origins = next.Origins()
	for _, k := range keys {
		if !k.reload {
			reflect.ValueOf(k.field(&c)).Elem().Set(reflect.ValueOf(k.field(old)).Elem())
			c.origins[k.name] = old.origins[k.name]
		}
	}
	return &c
}
