// Package installtest has the tests of what operators copy: the Helm chart and the compose files. They need more
// modules than the release itself, which does not import them.
package installtest
