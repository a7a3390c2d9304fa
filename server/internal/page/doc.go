// Package page serves the pages on which a user makes, sees, rotates and revokes its own tokens, and how a user gets
// in: by signing in at an OpenID provider, or handed over by the company's own product.
//
// Every page works without script. A form is answered with a redirect, except where a secret is shown: that page is the
// answer to the POST itself, and the idempotency key in the form makes a reload show the same secret again.
package page
