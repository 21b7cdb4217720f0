package gitops

import (
	"context"

	"github.com/git-gitops/git-gitops/internal/lock"
)

// FreezeKey is what is to be frozen or thawed: the branch of a request with every narrower lock in
// it, or all branches of its repository; under GITOPS_LOCK_KEY, that lock.
func (f *Flows) FreezeKey(ctx context.Context, r LockRequest, all bool) (lock.Key, error) {
	if all {
		r.Branch = "any" // and is not asked for
	}
	_, keys, err := f.named(ctx, r)
	switch {
	case err != nil:
		return lock.Key{}, err
	case all:
		return keys[0].WholeRepo(), nil
	case keys[0].Verbatim != "":
		return keys[0], nil
	default:
		return keys[0].WholeBranch(), nil
	}
}
