package upgrade

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Who must have signed the checksums of a release, in the words of its certificate.
// scripts/install.sh asks for the same.
const (
	signerPrefix = "https://github.com/git-gitops/git-gitops/.github/workflows/release.yml@refs/tags/v"
	signerIssuer = "https://token.actions.githubusercontent.com"

	signatureName = checksumsName + ".sigstore.json"
)

// SignatureError is a release whose signature is missing or wrong.
type SignatureError struct{ Err error }

func (e *SignatureError) Error() string { return e.Err.Error() }
func (e *SignatureError) Unwrap() error { return e.Err }

// Verify has cosign, if it is on PATH, say that this version's release workflow signed the
// checksums.
func (s *Source) Verify(ctx context.Context, r Release) error {
	cosign, err := exec.LookPath("cosign")
	if errors.Is(err, exec.ErrNotFound) {
		return nil
	}
	if err != nil {
		return &SignatureError{fmt.Errorf("find cosign: %w", err)}
	}
	signature, err := s.get(ctx, s.base+"/download/v"+r.Version+"/"+signatureName, mostChecksums)
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		return &SignatureError{fmt.Errorf("cannot get the signature: %w", err)}
	}
	dir, err := os.MkdirTemp("", "git-gitops-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	list, bundle := filepath.Join(dir, checksumsName), filepath.Join(dir, signatureName)
	if err := errors.Join(os.WriteFile(list, r.list, 0o600), os.WriteFile(bundle, signature, 0o600)); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, cosign, "verify-blob", "--bundle", bundle, //nolint:gosec // the user's cosign
		"--certificate-identity", signerPrefix+r.Version, "--certificate-oidc-issuer", signerIssuer, list).CombinedOutput()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
		return &SignatureError{fmt.Errorf("%s was not signed by the release of version %s: cosign: %w: %.300s",
			checksumsName, r.Version, err, lines[len(lines)-1])}
	}
	return nil
}
