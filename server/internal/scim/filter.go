package scim

import (
	"encoding/json"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"patd/tokens"
)

// Bounds of a page.
const (
	defaultCount = 100
	maxFilter    = 2000 // bytes
)

// filterForm is the one form of filter (RFC 7644 section 3.4.2.2): an attribute, eq, and a JSON string.
var filterForm = regexp.MustCompile(`^\s*([A-Za-z0-9:._-]+)\s+([A-Za-z]{2})\s+("(?:[^"\\]|\\.)*")\s*$`)

// parseFilter reads a filter; "": all.
func parseFilter(text string) (f tokens.ProvisionedFilter, err error) {
	if text == "" {
		return f, nil
	}
	parts := filterForm.FindStringSubmatch(text)
	if len(text) > maxFilter || parts == nil || !isEq(parts[2]) {
		return f, errFilter
	}
	var value string
	if json.Unmarshal([]byte(parts[3]), &value) != nil || value == "" {
		return f, errFilter
	}
	switch baseName(parts[1]) {
	case "username":
		f.UserName = value
	case "externalid":
		f.ExternalID = value
	case "id":
		f.ID = value
	default:
		return f, errFilter
	}
	return f, nil
}

func isEq(op string) bool { return op == "eq" || op == "Eq" || op == "EQ" || op == "eQ" }

var errFilter = scimFault(kindFilter, "filter", `must be userName eq "…", externalId eq "…" or id eq "…"`)

// page is which part of a list a request wants.
type page struct{ start, count int }

// parsePage reads startIndex and count (RFC 7644 section 3.4.2.4).
func parsePage(query url.Values) (p page, err error) {
	p = page{1, defaultCount}
	for _, f := range []struct {
		name  string
		to    *int
		least int
	}{{"startIndex", &p.start, 1}, {"count", &p.count, 0}} {
		text := query.Get(f.name)
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			return p, invalidValue(f.name, "must be a number")
		}
		*f.to = max(n, f.least)
	}
	p.count = min(p.count, tokens.MaxProvisioned)
	return p, nil
}

// parseSearch reads a query in a body, as the parameters of a GET.
func parseSearch(body []byte) (url.Values, error) {
	o, err := parseObject(body)
	if err != nil {
		return nil, err
	}
	if err := checkSchemas(o, schemaSearch); err != nil {
		return nil, err
	}
	query := url.Values{}
	for _, name := range []string{"filter", "startIndex", "count", "attributes", "excludedAttributes"} {
		raw := o[strings.ToLower(name)]
		var one string
		var number json.Number
		var all []string
		switch {
		case isNull(raw):
		case json.Unmarshal(raw, &all) == nil:
			query[name] = all
		case json.Unmarshal(raw, &one) == nil:
			query.Set(name, one)
		case json.Unmarshal(raw, &number) == nil:
			query.Set(name, number.String())
		default:
			return nil, invalidValue(name, "is of another type")
		}
	}
	return query, nil
}
