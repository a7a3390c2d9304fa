// Package agent is the command that keeps a token in a file fresh: `patd agent`. What it does is package tokensource's;
// here are its flags, the lock that keeps a second one away, and the hook.
package agent
