//go:build !linux

package lock

import "time"

// bootClock is the monotonic clock: no other is asked here.
func bootClock() time.Duration { return time.Since(processStart) }

var processStart = time.Now()
