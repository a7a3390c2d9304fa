package features

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"patd/tokens"
)

// maxSecretFile bounds what is read of a file that should hold one password or key.
const maxSecretFile = 64 << 10

// readSecretFile reads a secret from a file. One line end at the end is not part of it; anything else is.
func readSecretFile(path string) (tokens.Secret, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return tokens.Secret{}, fmt.Errorf("read secret file: %w", err)
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	switch {
	case text == "":
		return tokens.Secret{}, errors.New("read secret file: " + path + " is empty")
	case len(text) > maxSecretFile:
		return tokens.Secret{}, errors.New("read secret file: " + path + " is too large to be one secret")
	}
	return tokens.NewSecret(text), nil
}
