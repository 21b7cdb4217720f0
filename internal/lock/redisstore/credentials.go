package redisstore

import (
	"context"
	"sync"
)

// credentials are a user and a password that is read again for each login, so that one that is
// changed while a command waits, or a keeper lives, is noticed.
type credentials struct {
	user string
	read func() (string, error)

	mu   sync.Mutex
	last string // of the last login
}

// login is what the client asks before it logs in.
func (c *credentials) login(context.Context) (user, password string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now, err := c.read(); err == nil && now != "" { // else it is being replaced
		c.last = now
	}
	return c.user, c.last, nil
}

// changed reports whether the password is another one than that of the last login.
func (c *credentials) changed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, err := c.read()
	return err == nil && now != "" && now != c.last
}
