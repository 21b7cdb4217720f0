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

// Role is what a user of Redis is for.
type Role string

// The roles.
const (
	Everything Role = ""         // every command of git-gitops
	Operator   Role = "operator" // the same
	Pipeline   Role = "pipeline" // everything, but to break what others hold
	Server     Role = "server"   // the hook of a git server: Check, and no more
	Viewer     Role = "viewer"   // List and Events: reads only
)

// Roles are those that have a name.
var Roles = []Role{Operator, Pipeline, Server, Viewer}

// roleCommands are the commands of roles that have few.
var roleCommands = map[Role][]string{
	Server: {
		"EVAL", "EVALSHA", "GET", "HDEL", "HEXISTS", "HGET", "HKEYS", "HMGET", "HRANDFIELD", "HSET", "PEXPIRE", "PING", "PTTL", "TIME",
	},
	Viewer: {
		"EVAL", "EVALSHA", "EXISTS", "GET", "HGET", "HKEYS", "HMGET", "INFO", "PING", "PTTL", "PUBSUB", "SCAN", "SCRIPT|LOAD", "TIME",
		"TYPE", "XRANGE", "ZRANGE",
	},
}

// usedKinds are the kinds of keys that every script may use. operatorKind is for break and freeze
// alone. It is never there: who may not touch it cannot break or freeze a lock.
var usedKinds = append([]string{"lock", "wake", "offers", "blocked"}, kinds...)

const operatorKind = "operator"

// allCommands are those of every script and of the client.
func allCommands() []string {
	commands := slices.Clone(clientCommands)
	pattern := regexp.MustCompile(scriptCall)
	for _, file := range scriptFiles() {
		for _, call := range pattern.FindAllStringSubmatch(scriptText(file), -1) {
			commands = append(commands, call[1])
		}
	}
	return commands
}

// ACL is the rule of a user who may do what a Store with these options does in a role, and nothing
// else, for ACL SETUSER of Redis 6.2 or newer (redis.io/docs "ACL"). verbatim are the keys of locks
// that have one of their own. The user's passwords are left as they are.
func ACL(role Role, o Options, verbatim ...string) []string {
	list, few := roleCommands[role]
	if !few {
		list = allCommands()
	}
	commands := map[string]bool{}
	for _, c := range list {
		commands[c] = true
	}
	if commands["PUBSUB"] { // of which the scripts count subscribers, and no more
		delete(commands, "PUBSUB")
		count, subscribe := "PUBSUB|NUMSUB", "SUBSCRIBE"
		if o.Cluster {
			count, subscribe = "PUBSUB|SHARDNUMSUB", "SSUBSCRIBE"
		}
		commands[count], commands[subscribe] = true, !few
	}
	if o.DB != 0 {
		commands["SELECT"] = true
	}
	if o.MinReplicas > 0 && !few {
		commands["WAIT"] = true
	}
	if o.Cluster {
		commands["CLUSTER|SLOTS"] = true
	}
	prefix := newLayout(o.Prefix).prefix
	rule := []string{"on", "resetkeys"}
	if role == Pipeline || role == Server {
		for _, kind := range usedKinds {
			rule = append(rule, "~"+globEscape(prefix)+":"+kind+":*")
		}
	} else {
		rule = append(rule, "~"+globEscape(prefix)+":*")
	}
	for _, key := range verbatim {
		rule = append(rule, "~"+strings.Map(noBlank, globEscape(key)))
	}
	rule = append(rule, "resetchannels")
	if !few {
		rule = append(rule, "&"+strings.Map(noBlank, globEscape(prefix))+":alive:*")
	}
	rule = append(rule, "-@all")
	for _, c := range slices.Sorted(maps.Keys(commands)) {
		if commands[c] {
			rule = append(rule, "+"+strings.ToLower(c))
		}
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
