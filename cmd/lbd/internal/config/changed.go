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
