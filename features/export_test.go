package features

import (
	"net"
	"net/netip"
)

// WithResolver makes a callback look names up with another resolver.
func (c CallbackConfig) WithResolver(r *net.Resolver) CallbackConfig {
	c.resolver = r
	return c
}

// ParseFeatures is parseFeatures.
func ParseFeatures(body []byte, limit int) ([]string, error) { return parseFeatures(body, limit) }

// Public is public.
func Public(a netip.Addr) bool { return public(a.Unmap()) }

// Kept is how many answers the cache keeps, how large they are, and how many users somebody waits for.
func (c *Cached) Kept() (users int, bytes int64, queues int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.memory.recent.Len(), c.memory.bytes, len(c.queues)
}
