package server

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"patd/internal/secretfile"
)

// reloadInterval is the least time between two checks of the certificate files. A check needs a new connection.
const reloadInterval = time.Second

// LoadTLS returns a TLS configuration for a certificate and its key, which are read again when the files change. A pair
// that cannot be read is an error now; later it is logged, and the previous pair stays.
func LoadTLS(certFile, keyFile string, logger *slog.Logger) (*tls.Config, error) {
	c, err := LoadCertificate(certFile, keyFile, logger)
	if err != nil {
		return nil, err
	}
	return c.TLS(), nil
}

// Certificate is a certificate and its key in files, which are read again when they change.
type Certificate struct{ pair *keyPair }

// LoadCertificate reads a certificate and its key, as LoadTLS does.
func LoadCertificate(certFile, keyFile string, logger *slog.Logger) (*Certificate, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	p := &keyPair{certFile: certFile, keyFile: keyFile, logger: logger}
	stamp, err := p.look()
	if err != nil {
		return nil, err
	}
	cert, err := p.read()
	if err != nil {
		return nil, err
	}
	p.cert, p.stamp, p.looked = cert, stamp, time.Now()
	return &Certificate{pair: p}, nil
}

// TLS returns a configuration that presents the certificate as it was last read. It has no protocols.
func (c *Certificate) TLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.pair.get}
}

// Reload reads the files now, whether they seem to have changed or not. If they cannot be read, it returns why, and the
// previous pair stays.
func (c *Certificate) Reload() error {
	p := c.pair
	p.mu.Lock()
	defer p.mu.Unlock()
	stamp, err := p.look()
	if err != nil {
		return err
	}
	cert, err := p.read()
	if err != nil {
		return err
	}
	p.cert, p.stamp, p.looked = cert, stamp, time.Now()
	return nil
}

// keyPair is a certificate with its key, as last read successfully.
type keyPair struct {
	certFile, keyFile string
	logger            *slog.Logger

	mu     sync.Mutex
	cert   *tls.Certificate
	stamp  filesStamp
	looked time.Time
}

// filesStamp identifies the state of both files.
type filesStamp struct {
	certTime, keyTime time.Time
	certSize, keySize int64
}

// get returns the certificate for a handshake. It reads the files again if they have changed.
func (p *keyPair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if now.Sub(p.looked) < reloadInterval {
		return p.cert, nil
	}
	p.looked = now
	stamp, err := p.look()
	if err == nil && stamp == p.stamp {
		return p.cert, nil
	}
	if err == nil {
		var cert *tls.Certificate
		if cert, err = p.read(); err == nil {
			p.cert = cert
			p.logger.Info("the TLS certificate was read anew")
		}
	}
	// A bad pair is logged once: its stamp is kept, and only the next change causes another read.
	if err != nil && stamp != p.stamp {
		p.logger.Error(
			"the TLS certificate could not be read anew; the one before it stays",
			slog.String("cause", err.Error()),
		)
	}
	p.stamp = stamp
	return p.cert, nil
}

func (p *keyPair) look() (filesStamp, error) {
	cert, err := os.Stat(p.certFile)
	if err != nil {
		return filesStamp{}, fmt.Errorf("look at the TLS certificate: %w", err)
	}
	key, err := os.Stat(p.keyFile)
	if err != nil {
		return filesStamp{}, fmt.Errorf("look at the TLS key: %w", err)
	}
	return filesStamp{cert.ModTime(), key.ModTime(), cert.Size(), key.Size()}, nil
}

func (p *keyPair) read() (*tls.Certificate, error) {
	chain, err := secretfile.Read(p.certFile)
	if err != nil {
		return nil, fmt.Errorf("read the TLS certificate: %w", err)
	}
	key, err := secretfile.Read(p.keyFile)
	if err != nil {
		return nil, fmt.Errorf("read the TLS key: %w", err)
	}
	cert, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, fmt.Errorf("read the TLS certificate and key: %w", err)
	}
	return &cert, nil
}
