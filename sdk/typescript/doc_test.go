// Package typescript runs the tests of the TypeScript library: its own, the scenarios of sdk/conformance against a real
// patd, and the blocks of its README, with the package as npm packs it.
//
// They need Node, and what `npm ci` installs here. Without it they are skipped, unless CI is set in the environment:
// there they fail. The race detector would see nothing, since all that is tested runs in other processes.
package typescript
