// Package secret is the form of a secret and what is done with it: prefix, public id, checksum, making and parsing one, its digest under
// the keys of a key file, and finding secrets in text that is about to be shown.
//
// A secret reads `prefix_id_secretchecksum`: the prefix names its kind, the id is public and finds the record, and the checksum tells a
// mistyped one from a wrong one without a look at any store. Types that hold a secret print as a placeholder.
package secret
