// Generate writes the types and operations of the management clients for Java and C# out of the OpenAPI document of
// patd. The well-known generators make clients that need a JSON library and more; these libraries have what they need.
//
//	go run ./sdk/generate
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	if err := write("."); err != nil {
		fmt.Fprintf(os.Stderr, "generate: %v\n", err)
		os.Exit(1)
	}
}

// targets are the directories that belong to what is generated, and to nothing else.
var targets = map[string]func(*spec) map[string]string{
	"sdk/java/core/src/main/java/patd/manage/types": java,
	"sdk/csharp/src/Patd/Management/Generated":      csharp,
}

// write writes all files below the root of the source, and removes those of before.
func write(root string) error {
	s, err := read(filepath.Join(root, "gen", "openapi", "openapi.json"))
	if err != nil {
		return err
	}
	for dir, make := range targets {
		dir = filepath.Join(root, filepath.FromSlash(dir))
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove what was generated before: %w", err)
		}
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return fmt.Errorf("make the directory: %w", err)
		}
		for name, text := range make(s) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				return fmt.Errorf("write a file: %w", err)
			}
		}
	}
	return nil
}

// upper turns snake_case and camelCase into UpperCamelCase.
func upper(name string) string {
	var b strings.Builder
	for _, part := range strings.FieldsFunc(name, func(r rune) bool { return r == '_' || r == '-' }) {
		b.WriteString(strings.ToUpper(part[:1]) + part[1:])
	}
	return b.String()
}

// lower turns a name into lowerCamelCase.
func lower(name string) string {
	up := upper(name)
	return strings.ToLower(up[:1]) + up[1:]
}

// wrapped breaks text into lines of at most width bytes, each with a prefix.
func wrapped(text, prefix string, width int) string {
	var b strings.Builder
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(prefix)+len(line)+1+len(word) > width {
			b.WriteString(prefix + line + "\n")
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	if line != "" {
		b.WriteString(prefix + line + "\n")
	}
	return b.String()
}
