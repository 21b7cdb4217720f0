package config

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
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
		RootCAs:            r.rootCAs(),
		Certificates:       r.certificates(),
		InsecureSkipVerify: out.Insecure, //nolint:gosec // only by the user's own setting, who is warned on each use
	}
	if name := r.word("REDIS_TLS_SERVER_NAME"); name != "" {
		config.ServerName = name
	}
	return config
}

// rootCAs returns the certificates to trust, nil for the system's.
func (r *reader) rootCAs() *x509.CertPool {
	const inline, file = "REDIS_TLS_CA_CERT_B64", "REDIS_TLS_CA_CERT"
	var pem []byte
	name := inline
	switch {
	case r.isSet(inline):
		r.forbid(inline+" is set", file)
		var err error
		pem, err = base64.StdEncoding.DecodeString(strings.Join(strings.Fields(r.text(inline)), ""))
		if err != nil {
			pem = nil
		}
	case r.isSet(file):
		name = file
		pem = r.file(file)
	default:
		return nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) && r.ok(name) {
		allowed := "at least one certificate in PEM"
		if name == inline {
			allowed += ", written in base64"
		}
		r.fail(name, allowed, nil)
	}
	return pool
}

// certificates returns our own certificate for mutual TLS, or none.
func (r *reader) certificates() []tls.Certificate {
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
	return []tls.Certificate{pair}
}
