// Package java runs the tests of the Java library: its own, the scenarios of sdk/conformance against a real patd, and
// the blocks of its README.
//
// They need a JDK of 17 or later, Maven, and what `mvn verify` in this directory has resolved. Without it they are
// skipped, unless CI is set in the environment: there they fail. The race detector would see nothing, since all that is
// tested runs in other processes.
package java
