// Package python tests the library for Python: its own tests and types, all scenarios of sdk/conformance for both
// verifiers, the programs of its README with a real patd, and how fast and how large memory is.
package python
