package giturl

import "strings"

// Redact returns text with every URL in it printed without credentials: scheme://user:token@host
// becomes scheme://host, and the values of a query are masked. When it can't tell a credential from
// something else it leaves too little rather than too much. Text without "://" comes back as it is.
func Redact(text string) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(text, "://")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		b.WriteString("://")
		word := upTo(rest, blanks)
		text = rest[len(word)-len(dropUserinfo(word)):]

		// Only the query of this URL: one that follows without a blank has its own turn.
		word = upTo(text, blanks+"'\"<>`")
		query, next := strings.IndexByte(word, '?'), strings.Index(word, "://")
		if query < 0 || (next >= 0 && next < query) {
			continue
		}
		if next >= 0 { // a URL as a value: its password may hold a quote
			word = upTo(text, blanks)
		}
		b.WriteString(word[:query])
		b.WriteString(maskQuery(word[query:]))
		text = text[len(word):]
	}
}

const blanks = " \t\r\n"

// upTo returns s up to the first of chars.
func upTo(s, chars string) string {
	if n := strings.IndexAny(s, chars); n >= 0 {
		return s[:n]
	}
	return s
}

// dropUserinfo cuts the userinfo off s, which is a URL from behind its "://" on.
func dropUserinfo(s string) string {
	for {
		authority := upTo(s, "/?#")
		end := afterLastAt(authority)
		if end == 0 && !strings.HasPrefix(s, "[") {
			// user:pa/ss@host: a password that should have been encoded shows as a port that is no
			// number.
			if _, port, found := strings.Cut(authority, ":"); found && (port == "" || strings.Trim(port, "0123456789") != "") {
				end = afterLastAt(s)
			}
		}
		if end == 0 {
			return s
		}
		s = s[end:]
	}
}

// afterLastAt returns the index behind the last @ of s, plain or encoded, or 0.
func afterLastAt(s string) int {
	end := strings.LastIndexByte(s, '@') + 1
	if n := strings.LastIndex(s, "%40"); n >= 0 {
		end = max(end, n+len("%40"))
	}
	return end
}

// maskQuery masks the values of query, which starts with its question mark. Names are kept when
// they look like names.
func maskQuery(query string) string {
	parts := strings.Split(query[1:], "&")
	for i, part := range parts {
		name, value, found := strings.Cut(part, "=")
		if found && name == "db" && len(value) <= 4 && strings.Trim(value, "0123456789N:,") == "" { // a database of Redis
			continue
		}
		if found && strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789_-.") == "" {
			parts[i] = name + "=***"
		} else if part != "" {
			parts[i] = "***"
		}
	}
	return "?" + strings.Join(parts, "&")
}
