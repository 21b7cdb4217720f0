package config

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// tls returns how to connect with TLS, nil for a plain connection.
func (r *reader) tls(out *Redis, useTLS bool, host string) *tls.Config {
	extra := r.onlySet("REDIS_TLS_CA_CERT_B64", "REDIS_TLS_CA_CERT", "REDIS_TLS_CERT", "REDIS_TLS_KEY", "REDIS_TLS_SERVER_NAME")
	if out.Insecure {
		extra = append(extra, "REDIS_TLS_INSECURE")
	}
	switch {
	case out.Network == "unix":
		if useTLS {
			extra = append(extra, "REDIS_TLS")
		}
		r.forbid("REDIS_URL names a socket", extra...)
		return nil
	case !useTLS:
		// A plain connection must not come of a forgotten switch.
		if len(extra) > 0 && r.ok("REDIS_TLS", "REDIS_URL") {
			r.fail("REDIS_TLS", "true, because "+strings.Join(extra, " and ")+" set TLS up", nil)
		}
		return nil
	}
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         host,
		RootCAs:            r.rootCAs(out),
		Certificates:       r.certificates(out),
		InsecureSkipVerify: out.Insecure, //nolint:gosec // only by the user's own setting, with a warning at each use
	}
	if name := r.word("REDIS_TLS_SERVER_NAME"); name != "" {
		config.ServerName = name
	}
	return config
}

// tlsFiles are the files from which TLS was set up, absolute; "" for none.
type tlsFiles struct{ ca, cert, key string }

// ReadTLS reads the files of certificates again, as they may be renewed while a command waits. It
// is nil where none is from a file.
func (r Redis) ReadTLS() func() (*tls.Config, error) {
	if r.TLS == nil || r.tlsFiles == (tlsFiles{}) {
		return nil
	}
	return func() (*tls.Config, error) {
		config := r.TLS.Clone()
		if r.tlsFiles.ca != "" {
			pem, err := os.ReadFile(r.tlsFiles.ca)
			if err == nil {
				config.RootCAs, err = roots(pem)
			}
			if err != nil {
				return nil, fmt.Errorf("read REDIS_TLS_CA_CERT: %w", err)
			}
		}
		if r.tlsFiles.cert != "" {
			pair, err := tls.LoadX509KeyPair(r.tlsFiles.cert, r.tlsFiles.key)
			if err != nil {
				return nil, fmt.Errorf("read REDIS_TLS_CERT: %w", err)
			}
			config.Certificates = []tls.Certificate{pair}
		}
		return config, nil
	}
}

// rootCAs returns the certificates to trust, nil for the system's.
func (r *reader) rootCAs(out *Redis) *x509.CertPool {
	const inline, file = "REDIS_TLS_CA_CERT_B64", "REDIS_TLS_CA_CERT"
	switch {
	case r.isSet(inline):
		r.forbid(inline+" is set", file)
		pool, err := inlineRoots(r.text(inline))
		if err != nil {
			r.fail(inline, "at least one certificate in PEM, written in base64", err)
		}
		return pool
	case r.isSet(file):
		out.tlsFiles.ca, _ = filepath.Abs(r.text(file)) // a keeper leaves the folder
		pool, err := roots(r.file(file))
		if err != nil && r.ok(file) {
			r.fail(file, "a file with at least one certificate in PEM", err)
		}
		return pool
	default:
		return nil
	}
}

func inlineRoots(text string) (*x509.CertPool, error) {
	if strings.Contains(text, "-----BEGIN") {
		return nil, errors.New("it is the PEM itself: write it in base64, or name its file in REDIS_TLS_CA_CERT")
	}
	pem, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return nil, errors.New("it is not base64")
	}
	pool, err := roots(pem)
	if err != nil {
		err = errors.New("it is base64, but holds no certificate in PEM")
	}
	return pool, err
}

// roots are the certificates to trust that a file holds.
func roots(pem []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	switch {
	case pool.AppendCertsFromPEM(pem):
		return pool, nil
	case bytes.HasPrefix(pem, []byte{0x30}): // a SEQUENCE of ASN.1
		return nil, errors.New("it is in DER, not in PEM: openssl x509 -inform der -in FILE")
	default:
		return nil, errors.New("it holds no certificate in PEM")
	}
}

// certificates returns our own certificate for mutual TLS, or none.
func (r *reader) certificates(out *Redis) []tls.Certificate {
	const certName, keyName = "REDIS_TLS_CERT", "REDIS_TLS_KEY"
	switch {
	case !r.isSet(certName) && !r.isSet(keyName):
		return nil
	case !r.isSet(keyName):
		r.fail(keyName, "the file with the key, because "+certName+" is set", nil)
		return nil
	case !r.isSet(certName):
		r.fail(certName, "the file with the certificate, because "+keyName+" is set", nil)
		return nil
	}
	cert, key := r.file(certName), r.file(keyName)
	if !r.ok(certName, keyName) {
		return nil
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		r.fail(certName, "a certificate in PEM that belongs to the key in "+keyName, err)
	}
	out.tlsFiles.cert, _ = filepath.Abs(r.text(certName))
	out.tlsFiles.key, _ = filepath.Abs(r.text(keyName))
	return []tls.Certificate{pair}
}
