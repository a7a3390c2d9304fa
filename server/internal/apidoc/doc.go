// Apidoc writes gen/openapi/openapi.json, the description of the REST interface, which every server has under
// /openapi.json. It is a program of `go generate ./gen/openapi`, and in no binary.
//
// What the document says comes from where it is decided: paths, messages and their texts from the contract in proto/,
// who may call what from the rights table (package call), the fields that a response always has from the way in which
// JSON is written. A new method is described without a change here. Only the endpoints that are not in the contract
// (OAuth, forward-auth, the probes) stand in outside.json, by hand.
//
// A comment of the contract is a text of the document. Its first sentence is the summary; a field of a response is
// optional if its comment says "absent". Fields of a request are required by google.api.field_behavior.
package main
