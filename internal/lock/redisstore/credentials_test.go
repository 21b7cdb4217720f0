package redisstore_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/git-gitops/git-gitops/internal/lock"
	"github.com/git-gitops/git-gitops/internal/redistest"
)

// TestReadPassword: a password that is changed while a store is open is read again, at a login and
// when one is refused. Until the file has the new one a waiter goes on.
func TestReadPassword(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	admin := server.Client(t)
	file := filepath.Join(t.TempDir(), "password")
	write := func(password string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	change := func(password string) {
		t.Helper()
		if err := admin.ConfigSet(t.Context(), "requirepass", password).Err(); err != nil {
			t.Fatal(err)
		}
		admin.Do(t.Context(), "client", "kill", "type", "normal", "skipme", "yes")
	}
	o := at(server)
	o.Password = "first"
	o.ReadPassword = func() (string, error) {
		text, err := os.ReadFile(file)
		return string(text), err
	}
	write("first")
	change("first")
	store := open(t, o)
	holder := request(key)
	if a := try(t, store, holder); !a.Granted {
		t.Fatalf("got %+v", a)
	}
	renew := func() error {
		t.Helper()
		_, err := store.Renew(t.Context(), holder.Hold(), lock.RenewOptions{})
		if err != nil && strings.Contains(err.Error(), "closed") || errors.Is(err, os.ErrClosed) { // the connection that was killed
			_, err = store.Renew(t.Context(), holder.Hold(), lock.RenewOptions{})
		}
		return err
	}

	change("second") // and the file comes later
	var se *lock.StoreError
	for until := time.Now().Add(time.Minute); ; {
		err := renew()
		if errors.As(err, &se) && se.Failure == lock.Rotated && lock.Transient(err) {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("got %v, want what a waiter waits out", err)
		}
	}
	write("second")
	if err := renew(); err != nil {
		t.Errorf("with the new password: %v", err)
	}

	// A file that is gone for a moment, or empty, is one that is being replaced.
	write("")
	admin.Do(t.Context(), "client", "kill", "type", "normal", "skipme", "yes")
	for until := time.Now().Add(time.Minute); renew() != nil; {
		if time.Now().After(until) {
			t.Fatal("the last password is forgotten")
		}
	}

	// Of a first contact, a refused login is tried again with what the file says by then.
	write("third")
	change("third")
	o.Password = "second"
	once := true
	o.ReadPassword = func() (string, error) {
		if once {
			once = false
			return "second", nil
		}
		return "third", nil
	}
	if a := try(t, open(t, o), request(lock.Key{Repo: "h/new", Branch: "main"})); !a.Granted {
		t.Errorf("got %+v", a)
	}
	o.Password, o.ReadPassword = "wrong", func() (string, error) { return "wrong", nil }
	checkFailure(t, o, lock.AuthFailed)
}
