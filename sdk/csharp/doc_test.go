// Package csharp runs the tests of the C# library: its own, the scenarios of sdk/conformance against a real patd, and
// the programs of its README.
//
// They need a .NET Core SDK, which `npm ci` installs in tools. Without it they are skipped, unless CI is set in the
// environment: there they fail. The race detector would see nothing, since all that is tested runs in other processes.
package csharp
