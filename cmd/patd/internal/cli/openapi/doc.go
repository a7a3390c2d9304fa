// Package openapi reads from an OpenAPI document, 3.0 or 3.1, which scope each operation needs: from `security`, and
// from the extension `x-patd-scope`. It reads nothing else of the document, and no other file or address.
package openapi
