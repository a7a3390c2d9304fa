// Package routes reads tables of routes: which scopes a token needs for which requests. `patd scopes import` writes one
// from an OpenAPI document, and docs/routes.md describes the format, which is the same for the libraries of all
// languages.
//
// A table closes all that it does not open. A request is open if the most specific template that its path fits lists
// its method with at least one scope. Any other request is closed: one whose path fits no template, one whose method is
// not listed, one that is listed without a scope, and one whose path is spelled in another way (another case, a slash
// at the end, letters that are percent-encoded), since a router could take it for the route itself.
package routes
