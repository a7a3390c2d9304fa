// Package secret defines the form of a secret: prefix, public id and checksum. It mints and parses secrets, digests
// them under the keys of a key file, and finds them in text that is about to be shown.
//
// A secret reads `prefix_id_secretchecksum`: the prefix names its kind, the id is public and finds the record, and the
// checksum exposes a mistyped secret without a read of any store. Types that hold a secret print as a placeholder.
package secret
