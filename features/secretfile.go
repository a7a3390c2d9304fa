package features

import (
	"fmt"

	"patd/internal/secretfile"
	"patd/tokens"
	"patd/tokens/secret"
)

// readSecretFile reads one password or key from a file.
func readSecretFile(path string) (tokens.Secret, error) {
	text, err := secretfile.ReadLine(path)
	if err != nil {
		return tokens.Secret{}, fmt.Errorf("read secret file: %w", err)
	}
	return secret.NewSecret(text), nil
}
