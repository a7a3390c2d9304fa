package tokens

import (
	"crypto/subtle"
	"encoding/base64"
	"strings"

	"patd/tokens/secret"
)

const pageMAC = 16

var errPageToken = Invalid(
	"PAGE_TOKEN_INVALID",
	"page_token",
	"not a page token of this list; start from the first page",
)

// lister makes and reads the page tokens of one query. A page token holds the start of the next page. It is
// authenticated together with the query, so it can neither be forged nor used with another query.
type lister struct {
	keys  *Keys
	query string
}

// page returns the position to start after (empty: the first page) and the page size.
func (l lister) page(p Page) (after string, limit int, err error) {
	switch {
	case p.Size < 0:
		return "", 0, Invalid("PAGE_SIZE_INVALID", "page_size", "must not be negative")
	case p.Size == 0:
		limit = defaultPageSize
	default:
		limit = min(p.Size, MaxPageSize)
	}
	if p.Token == "" {
		return "", limit, nil
	}
	raw, err := decodeBase64(p.Token)
	if err != nil || len(raw) <= pageMAC {
		return "", 0, errPageToken
	}
	after = string(raw[pageMAC:])
	for _, k := range l.keys.All() {
		mac := l.mac(k, after)
		if subtle.ConstantTimeCompare(mac[:pageMAC], raw[:pageMAC]) == 1 {
			return after, limit, nil
		}
	}
	return "", 0, errPageToken
}

// decodeBase64 decodes base64url of which each text has one spelling only: the library's decoder passes over line ends.
func decodeBase64(text string) ([]byte, error) {
	if at := strings.IndexAny(text, "\r\n"); at >= 0 {
		return nil, base64.CorruptInputError(at)
	}
	return base64.RawURLEncoding.Strict().DecodeString(text)
}

func (l lister) next(after string) string {
	mac := l.mac(l.keys.All()[0], after)
	return base64.RawURLEncoding.EncodeToString(append(mac[:pageMAC], after...))
}

func (l lister) mac(k secret.Key, after string) [32]byte {
	return k.Derive("page token").Sum(framed(l.query, after))
}

// cut returns at most limit items, and the token of the next page if there are more.
func cut[T any](l lister, items []T, limit int, position func(T) string) ([]T, string) {
	if len(items) <= limit {
		return items, ""
	}
	items = items[:limit]
	return items, l.next(position(items[limit-1]))
}
