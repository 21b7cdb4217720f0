package gitargs

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Config is git's configuration: all values of each key, in the order that git reads them. Keys
// are as git prints them: section and last part in lower case, the part between as it is.
type Config map[string][]string

// rewrites is a key beside git's own, which all have a dot: the keys of url.<base>, in the order
// in which they first appear. Of bases of equal length git takes the first.
const rewrites = "url"

func (c Config) add(key, value string) {
	if _, seen := c[key]; !seen && strings.HasPrefix(key, "url.") {
		c[rewrites] = append(slices.Clip(c[rewrites]), key)
	}
	c[key] = append(slices.Clip(c[key]), value)
}

// HasHook reports whether the configuration defines a hook (since git 2.54) for one of the events.
func (c Config) HasHook(events ...string) bool {
	for key, values := range c {
		if strings.HasPrefix(key, "hook.") && strings.HasSuffix(key, ".event") &&
			slices.ContainsFunc(values, func(v string) bool { return slices.Contains(events, v) }) {
			return true
		}
	}
	return false
}

// ParseConfig reads the output of `git config -z --list`. A key without a value, which git takes
// as a true boolean, gets the value "true".
func ParseConfig(z []byte) Config {
	c := make(Config)
	for entry := range strings.SplitSeq(string(z), "\x00") {
		key, value, ok := strings.Cut(entry, "\n")
		if !ok {
			value = "true"
		}
		if key != "" {
			c.add(key, value)
		}
	}
	return c
}

// With is the same configuration with settings added, "key=value" as -c has them. The first and the
// last part of a key are in any case.
func (c Config) With(settings []string) Config {
	c = maps.Clone(c)
	for _, setting := range settings {
		key, value, ok := strings.Cut(setting, "=")
		if !ok {
			value = "true"
		}
		first, last := strings.IndexByte(key, '.'), strings.LastIndexByte(key, '.')
		if first >= 0 {
			key = strings.ToLower(key[:first]) + key[first:last] + strings.ToLower(key[last:])
		}
		c.add(key, value)
	}
	return c
}

// Get returns the last value of a key, which is the one that counts, and whether there is one.
func (c Config) Get(key string) (string, bool) {
	values := c[key]
	if len(values) == 0 {
		return "", false
	}
	return values[len(values)-1], true
}

// IsTrue reads a boolean as git does (git_parse_maybe_bool in config.c), except that a
// malformed one, at which git stops, is true.
func (c Config) IsTrue(key string) bool {
	value, ok := c.Get(key)
	if !ok {
		return false
	}
	switch strings.ToLower(value) {
	case "", "false", "no", "off":
		return false
	}
	n, err := strconv.ParseInt(value, 0, 64)
	return err != nil || n != 0
}
