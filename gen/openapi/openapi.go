// Package openapi holds the description of the REST interface: one OpenAPI 3.1 document, made from the contract in
// proto/ by `go generate ./gen/openapi`, which also makes everything else in gen/ and needs only Go.
package openapi

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"strings"
)

//go:generate go -C ../.. run -modfile=tools.mod proto/google/print.go
//go:generate go -C ../.. tool -modfile=tools.mod buf generate
//go:generate go -C ../.. tool -modfile=tools.mod buf build -o gen/openapi/contract.binpb
//go:generate go run patd/server/internal/apidoc

// document is as made: it names the default issuer.
//
//go:embed openapi.json
var document []byte

const defaultIssuer = `"http://127.0.0.1:8080"`

// Of returns the document of a server with that issuer, as served under /openapi.json.
func Of(issuer string) []byte {
	name, _ := json.Marshal(strings.TrimRight(issuer, "/")) // every text has a JSON form
	return bytes.Replace(document, []byte(`"default": `+defaultIssuer), append([]byte(`"default": `), name...), 1)
}
