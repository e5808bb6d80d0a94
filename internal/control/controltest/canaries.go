package controltest

import (
	"bytes"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"sync"
)

// Canaries are secrets in every spelling in which they might get out.
type Canaries struct {
	mu   sync.Mutex
	list map[string][]byte // what it is -> its bytes
}

// Plant adds a secret.
func (c *Canaries) Plant(what string, raw []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.list == nil {
		c.list = map[string][]byte{}
	}
	c.list[what+", as it is"] = raw
	c.list[what+", in base64"] = []byte(strings.TrimRight(base64.StdEncoding.EncodeToString(raw), "="))
	c.list[what+", in base64url"] = []byte(base64.RawURLEncoding.EncodeToString(raw))
	c.list[what+", in hex"] = []byte(hex.EncodeToString(raw))
	c.list[what+", in base32"] = []byte(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(raw))
}

// Find names the first secret that is in b.
func (c *Canaries) Find(b []byte) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for what, secret := range c.list {
		if bytes.Contains(b, secret) {
			return what
		}
	}
	return ""
}
