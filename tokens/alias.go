package tokens

import "patd/tokens/secret"

// CutChecksum cuts the first of two checksums off.
func CutChecksum(b []byte) (first, second []byte) { return secret.CutChecksum(b) }

// RowKeyPrefixes returns how the checksums of rows under the key of a name begin: those of either form.
func RowKeyPrefixes(name string) (short, long []byte) { return secret.RowKeyPrefixes(name) }

// The types of package secret that are used in records, requests and results of the domain.
type (
	// ID is the public part of a secret, which names its record.
	ID = secret.ID
	// Secret is a text that never prints.
	Secret = secret.Secret
	// Hash is the keyed digest of a secret.
	Hash = secret.Hash
	// Keys is the content of one key file.
	Keys = secret.Keys
	// Keyring holds the keys in force.
	Keyring = secret.Keyring
	// Kind is what a secret is for.
	Kind = secret.Kind
	// Prefixes are the prefixes of a server's secrets.
	Prefixes = secret.Prefixes
	// KeyRecord is what a store knows of a digest key.
	KeyRecord = secret.KeyRecord
)
