package features

import (
	"crypto/tls"
	"net"

	"github.com/go-sql-driver/mysql"

	"patd/tokens/secret"
)

// WithResolver makes a callback look names up with another resolver.
func (c CallbackConfig) WithResolver(r *net.Resolver) CallbackConfig {
	c.resolver = r
	return c
}

// ParseFeatures is parseFeatures, of alice.
func ParseFeatures(body []byte, limit int) ([]string, error) {
	names, _, err := parseFeatures(body, "alice", limit)
	return names, err
}

// Kept is how many answers the cache keeps, how large they are, and how many users somebody waits for.
func (c *Cached) Kept() (users int, bytes int64, queues int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.memory.recent.Len(), c.memory.bytes, len(c.queues)
}

// Verified reports whether every connection to the database of a URL is made over TLS to a server that proves who it
// is.
func Verified(text string) (bool, error) {
	e, u, err := parseSQLURL(text)
	if err != nil {
		return false, err
	}
	strict := func(c *tls.Config) bool { return c != nil && !c.InsecureSkipVerify }
	if e.name == "MySQL" {
		c, err := mysqlConfig(SQLConfig{URL: secret.NewSecret(text)}.withDefaults(), u)
		if err == nil {
			c, err = mysql.ParseDSN(c.FormatDSN()) // settles what TLS there is
		}
		return err == nil && strict(c.TLS) && !c.AllowFallbackToPlaintext, err
	}
	c, err := postgresConfig(u)
	if err != nil {
		return false, err
	}
	all := strict(c.TLSConfig)
	for _, f := range c.Fallbacks {
		all = all && strict(f.TLSConfig)
	}
	return all, nil
}
