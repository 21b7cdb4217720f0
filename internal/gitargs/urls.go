package gitargs

import "strings"

// FetchURL is the URL that git would fetch from for a remote's name or a URL, after its own
// rewriting (alias_all_urls in remote.c). "git remote get-url" knows neither URLs nor remotes that
// -c made, and would cost a process.
func (c Config) FetchURL(remote string) string {
	url := remote
	if urls := c["remote."+remote+".url"]; len(urls) > 0 {
		url = urls[0]
	}
	url, _ = c.rewrite(url, "insteadof")
	return url
}

// PushURLs are the URLs that git would push to for a remote's name or a URL, after its own
// rewriting.
func (c Config) PushURLs(remote string) []string {
	urls, rewritten := c["remote."+remote+".pushurl"], []string(nil)
	if len(urls) == 0 {
		if urls = c["remote."+remote+".url"]; len(urls) == 0 {
			urls = []string{remote}
		}
		for _, url := range urls {
			if to, ok := c.rewrite(url, "pushinsteadof"); ok {
				rewritten = append(rewritten, to)
			}
		}
		if len(rewritten) > 0 {
			return rewritten
		}
	}
	for _, url := range urls {
		to, _ := c.rewrite(url, "insteadof")
		rewritten = append(rewritten, to)
	}
	return rewritten
}

// rewrite replaces the longest prefix that one of the url.<base>.<how> names by its base, if there
// is one; of equally long ones that of the base that comes first.
func (c Config) rewrite(url, how string) (string, bool) {
	longest, base := "", ""
	for _, key := range c[rewrites] {
		to, ok := strings.CutSuffix(key, "."+how)
		if !ok {
			continue
		}
		for _, prefix := range c[key] {
			if len(prefix) > len(longest) && strings.HasPrefix(url, prefix) {
				longest, base = prefix, strings.TrimPrefix(to, "url.")
			}
		}
	}
	return base + url[len(longest):], longest != ""
}
