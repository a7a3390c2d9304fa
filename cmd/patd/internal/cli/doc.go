// Package cli is shared by the commands of patd: one run of the command line (Command), its environment (System), the
// types of flag values, and the output of results, errors and exit codes. It redacts secrets from errors.
package cli
