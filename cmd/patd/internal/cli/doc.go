// Package cli is what the commands of patd share: one run of the command line (Command), what it has of the world (System), the types
// of flags' values, and how results, errors and exit codes are printed. What looks like a secret is blotted out of errors here.
package cli
