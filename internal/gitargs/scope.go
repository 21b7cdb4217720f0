package gitargs

import (
	"slices"
	"strings"
)

// ScopedConfig is git's configuration with the scope of each value: system, global and command
// are set by the user or the machine, local and worktree by the repository. A value from an
// included file has the scope of the file that includes it.
type ScopedConfig struct {
	Config
	scopes map[string][]string // for each key, as long as its values
}

// User is what the user and the machine set for us, without what the repository says.
func (c ScopedConfig) User() ScopedConfig {
	user := ScopedConfig{Config: Config{}, scopes: map[string][]string{}}
	for key, values := range c.Config {
		if !strings.HasPrefix(key, "gitops.") {
			continue
		}
		for i, value := range values {
			if scope := c.scopes[key][i]; userScope(scope) {
				user.add(key, value, scope)
			}
		}
	}
	return user
}

// userScope reports whether a scope is the user's or the machine's, and no repository's.
func userScope(scope string) bool {
	return scope == "system" || scope == "global" || scope == "command"
}

// Scope is where the last value of a key is set, "" when there is none.
func (c ScopedConfig) Scope(key string) string {
	scopes := c.scopes[key]
	if len(scopes) == 0 {
		return ""
	}
	return scopes[len(scopes)-1]
}

// RepositoryScope is the scope of the last value that the repository sets, "" when it sets none.
func (c ScopedConfig) RepositoryScope(key string) string {
	for _, scope := range slices.Backward(c.scopes[key]) {
		if !userScope(scope) {
			return scope
		}
	}
	return ""
}

func (c ScopedConfig) add(key, value, scope string) {
	c.Config.add(key, value)
	c.scopes[key] = append(c.scopes[key], scope)
}

// ParseScopedConfig reads the output of `git config -z --list --show-scope`.
func ParseScopedConfig(z []byte) ScopedConfig {
	c := ScopedConfig{Config: Config{}, scopes: map[string][]string{}}
	fields := strings.Split(string(z), "\x00")
	for i := 0; i+1 < len(fields); i += 2 {
		key, value, ok := strings.Cut(fields[i+1], "\n")
		if !ok {
			value = "true"
		}
		c.add(key, value, fields[i])
	}
	return c
}

// Delete removes a key.
func (c ScopedConfig) Delete(key string) {
	delete(c.Config, key)
	delete(c.scopes, key)
}
