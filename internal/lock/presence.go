package lock

import (
	"context"
	"os"
	"time"
)

// Presence is whether the processes of a holder are there. A holder subscribes to a channel of the
// store, and the subscription ends with its process, wherever that ran and however it ended. The
// first in line looks whether anybody is subscribed, and the store ends a hold whose holder has
// gone.
type Presence int

// What is known of a holder's processes.
const (
	PresenceUnknown Presence = iota // none is claimed for all who share the lock, or the store cannot say
	Present
	Absent // nobody is subscribed at this moment
)

// noPresence is what a renewal claims whose subscription has ended.
const noPresence = "none"

// Subscription shows others that the process which made it lives.
type Subscription interface {
	// Server is the store's name for the server that counts it.
	Server() string
	// Wait returns nil after d when the subscription still stands, and an error as soon as it has
	// ended.
	Wait(ctx context.Context, d time.Duration) error
	// File is the connection, for another process to hold open; nil where that is not possible.
	File() *os.File
	Close() error
}

// Attend shows for as long as the lease is held that this process lives, until stop is called,
// which leaves the subscription open: Leave ends it, or the end of the process. After each change
// Changed is signalled, and the lease is to be renewed at once.
func (l *Lease) Attend(ctx context.Context, s Store) (stop func()) {
	l.mu.Lock()
	if l.awaited == (moment{}) && l.Share == "" { // whoever shares a lock may not make it shorter
		l.awaited = now().add(s.Timing().First)
	}
	l.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.attend(ctx, s)
	}()
	return func() {
		cancel()
		<-done
	}
}

func (l *Lease) attend(ctx context.Context, s Store) {
	timing, retry := s.Timing(), newBackoff()
	uncounted := Backoff{Least: time.Second, Most: timing.Unsubscribed} // while another server has the lock
	for {
		limit, cancel := context.WithTimeout(ctx, timing.Subscribe)
		sub, err := s.Subscribe(limit, l.Key, l.Token)
		cancel()
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			l.unclaim()
			pause := retry.Next()
			if !Transient(err) {
				l.mu.Lock()
				l.awaited = now() // no more
				l.mu.Unlock()
				pause = timing.Unsubscribed
			}
			if Sleep(ctx, pause) != nil {
				return
			}
			continue
		}
		retry.Reset()
		watched, cancel := context.WithCancel(ctx)
		l.subscribed(sub, cancel)
		for sub.Wait(watched, timing.Ping) == nil {
			continue
		}
		cancel()
		if ctx.Err() != nil {
			return
		}
		if l.Claimed() {
			uncounted.Reset()
			continue
		}
		if Sleep(ctx, uncounted.Next()) != nil {
			return
		}
	}
}

// subscribed notes a new subscription, which the next renewal claims. The one before ends only now.
func (l *Lease) subscribed(sub Subscription, again context.CancelFunc) {
	l.mu.Lock()
	old := l.sub
	l.sub, l.server, l.again = sub, sub.Server(), again
	l.mu.Unlock()
	if old != nil {
		_ = old.Close()
	}
	l.change()
}

// unclaim has the next renewal take back what was claimed, by us or by the share as it was made.
func (l *Lease) unclaim() {
	l.mu.Lock()
	claimed := l.server != noPresence && (l.server != "" || l.Share != "")
	if claimed {
		l.server, l.claimed = noPresence, false
	}
	l.mu.Unlock()
	if claimed {
		l.change()
	}
}

// Unclaim takes back what was claimed, when nobody will keep the lease from now on.
func (l *Lease) Unclaim(ctx context.Context, s Store) error {
	l.unclaim()
	return l.Renew(ctx, s)
}

func (l *Lease) change() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// Changed is signalled when the lease is to be renewed at once.
func (l *Lease) Changed() <-chan struct{} { return l.changed }

// Claimed reports whether the store counts on our subscription.
func (l *Lease) Claimed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.claimed
}

// Subscription is the connection of a subscription that the store may count on, nil for none.
// Another process that holds it open is present in our place.
func (l *Lease) Subscription() *os.File {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sub == nil {
		return nil
	}
	return l.sub.File()
}

// Leave ends the subscription. Attend must have been stopped.
func (l *Lease) Leave() {
	l.mu.Lock()
	sub := l.sub
	l.sub, l.claimed = nil, false
	l.mu.Unlock()
	if sub != nil {
		_ = sub.Close()
	}
}
