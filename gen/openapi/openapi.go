// Package openapi holds the description of the REST interface: one OpenAPI 3.1 document, made from the contract in
// proto/ by `go generate ./gen/openapi`, which also makes everything else in gen/ and needs only Go.
package openapi

import _ "embed"

//go:generate go -C ../.. run -modfile=tools.mod proto/google/print.go
//go:generate go -C ../.. tool -modfile=tools.mod buf generate
//go:generate go run merge.go

// JSON is the document, as served under /openapi.json. It must not be changed.
//
//go:embed openapi.json
var JSON []byte
