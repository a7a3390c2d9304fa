// Package httpx holds what the HTTP packages share: the state of one request (Exchange), its body under the budget of
// unknown callers, checks of texts, JSON, and the writing of errors.
package httpx
