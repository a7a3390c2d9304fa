// Package oidctest has the OpenID providers of tests. [Provider] runs in the test's process: it costs nothing, signs
// whatever it is given, and its responses can be replaced by faulty ones. [Real] is oidc-provider, a certified provider
// that shares no code with patd, run by Node: what is held against it holds against a stranger's reading of the
// standards.
package oidctest
