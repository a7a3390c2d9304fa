// Package httpx is what the rooms that serve HTTP share: the state of one request (Exchange), its body under the budget of
// unknown callers, checks of texts, JSON, and the writing of errors.
package httpx
