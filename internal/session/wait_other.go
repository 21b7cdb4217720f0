//go:build !linux

package session

import "context"

// Wait returns nil when the process has ended, at once if it has already, and
// ctx's error if that comes first. It looks twice a second.
func (p Process) Wait(ctx context.Context) error {
	return p.poll(ctx, pollInterval)
}
