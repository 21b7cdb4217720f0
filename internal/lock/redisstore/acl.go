package redisstore

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// clientCommands are what a Store sends besides what its scripts call. PING is doctor's.
var clientCommands = []string{"EVAL", "EVALSHA", "BLPOP", "SET", "GET", "DEL", "SCAN", "XRANGE", "TIME", "PING", "SCRIPT|LOAD"}

const scriptCall = `call\('(\w+)'`

// ACL is the rule of a user who may do what a Store with these options does, and nothing else, for
// ACL SETUSER of Redis 6.2 or newer (redis.io/docs "ACL"). verbatim are the keys of locks that have one of
// their own. The user's passwords are left as they are.
func ACL(o Options, verbatim ...string) []string {
	commands := map[string]bool{}
	for _, c := range clientCommands {
		commands[c] = true
	}
	pattern := regexp.MustCompile(scriptCall)
	for _, file := range scriptFiles() {
		for _, call := range pattern.FindAllStringSubmatch(scriptText(file), -1) {
			commands[call[1]] = true
		}
	}
	delete(commands, "PUBSUB") // of which the scripts count subscribers, and no more
	if o.Cluster {
		commands["PUBSUB|SHARDNUMSUB"], commands["SSUBSCRIBE"] = true, true
	} else {
		commands["PUBSUB|NUMSUB"], commands["SUBSCRIBE"] = true, true
	}
	if o.DB != 0 {
		commands["SELECT"] = true
	}
	if o.MinReplicas > 0 {
		commands["WAIT"] = true
	}
	if o.Cluster {
		commands["CLUSTER|SLOTS"] = true
	}
	prefix := newLayout(o.Prefix).prefix
	rule := []string{"on", "resetkeys", "~" + globEscape(prefix) + ":*"}
	for _, key := range verbatim {
		rule = append(rule, "~"+strings.Map(noBlank, globEscape(key)))
	}
	rule = append(rule, "resetchannels", "&"+strings.Map(noBlank, globEscape(prefix))+":alive:*", "-@all")
	for _, c := range slices.Sorted(maps.Keys(commands)) {
		rule = append(rule, "+"+strings.ToLower(c))
	}
	return rule
}

// noBlank is any one character in place of one that no pattern of a rule may have.
func noBlank(r rune) rune {
	if unicode.IsSpace(r) || unicode.IsControl(r) {
		return '?'
	}
	return r
}
