//go:build unix

package workspace

import (
	"errors"
	"os"
	"syscall"
	"time"
)

const (
	shared = syscall.LOCK_SH
	alone  = syscall.LOCK_EX
)

// flock keeps others out of an open file until it is closed. It waits for two seconds at most: a
// process that was stopped while it wrote must not stop everybody else. Where the file system has
// no such locks, nobody is kept out.
func flock(f *os.File, how int) {
	for range 2000 {
		if err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// rewrite changes what is in a file that is there. Unlike replace it never makes a new name in the
// folder, so that a keeper can write while somebody deletes the clone: rm fails on a folder in
// which a file appears after rm has read it.
func (Dir) rewrite(file string, data []byte) error {
	f, err := os.OpenFile(file, os.O_RDWR, 0) //nolint:gosec // our own folder
	if err != nil {
		return unwritable(file, err)
	}
	defer func() { _ = f.Close() }()
	flock(f, alone)
	info, err := f.Stat()
	if err != nil {
		return unwritable(file, err)
	}
	// One write of at least the old length: white space after JSON means nothing.
	data = append(data, '\n')
	for int64(len(data)) < info.Size() {
		data = append(data, '\n')
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		return unwritable(file, err)
	}
	return nil
}

// access is an error when the user may not make and remove files in a folder.
func access(folder string) error {
	const writeAndSearch = 2 | 1                  // W_OK and X_OK of access(2)
	return syscall.Access(folder, writeAndSearch) //nolint:wrapcheck // the caller says what of
}
