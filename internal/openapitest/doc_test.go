// Package openapitest shows that the OpenAPI document of a running patd is good for the programs that read such
// documents: redocly finds nothing to say, openapi-typescript makes a client of it that compiles in strict mode and
// works, and Schemathesis makes requests of it, good and bad, whose responses are all as the document says.
//
// The programs are pinned in testdata. Where one is missing its test is skipped, unless CI is set in the environment:
// there it fails. The race detector would see nothing here, since all that is tested runs in other processes.
package openapitest
