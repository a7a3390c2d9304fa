// Package browsertest drives Chromium through the pages of a running patd, at which users sign in by a real OpenID
// provider: what only a browser shows is tested here, such as the keyboard, the layout, what is read aloud, and what a
// browser lets pages of other origins do.
//
// Each test runs a script of testdata/browser with playwright-core. All scripts but one share a browser, in which each
// has contexts of its own, and most share one patd, in which each has users of its own. Where Chromium or Node is
// missing the tests are skipped, unless CI is set in the environment: there they fail. The race detector would see
// nothing here, since all that is tested runs in other processes.
//
// Pictures of each page are left in testdata/pictures.
package browsertest
