// Package github takes the messages of GitHub's secret scanning partner program: secrets of patd that GitHub has found
// in public places. A message is believed if GitHub has signed it (ECDSA on P-256 with SHA-256, over the body as it was
// sent). Every live secret in it is revoked, by the same use case as any reported leak, and the answer says of each
// whether it is or was one of this patd.
//
// The public keys are fetched from GitHub when the first message arrives, and kept. A message under a key that is not
// among them makes patd fetch them again, a few times an hour at most: anybody can send such a message. While they
// cannot be fetched, those at hand serve for a day; a message that they cannot judge is then an outage, not a forgery.
package github
