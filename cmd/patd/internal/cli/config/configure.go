package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"patd/cmd/patd/internal/cli"
)

// Configure sets flags that the command line left out from the environment, and remaining ones from the configuration
// file. Cobra calls it before the command runs.
func Configure(c *cli.Command, cmd *cobra.Command) error {
	c.Arguments = map[string]bool{}
	cmd.Flags().Visit(func(f *pflag.Flag) { c.Arguments[f.Name] = true })
	if err := fromEnvironment(c, cmd.Flags()); err != nil {
		return err
	}
	if c.Config == "" {
		return nil
	}
	text, err := os.ReadFile(c.Config)
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	if err := FromFile(cmd.Flags(), text, AllSettings(c.Shared)); err != nil {
		return fmt.Errorf("read the configuration %s: %w", c.Config, err)
	}
	return nil
}

// Variable returns the environment variable of a flag.
func Variable(flag string) string {
	return "PATD_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// fromEnvironment sets flags from variables. A variable that is empty counts as not set.
func fromEnvironment(c *cli.Command, flags *pflag.FlagSet) error {
	var failed error
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Changed || f.Name == "help" || f.Annotations[cli.ArgumentOnly] != nil || failed != nil {
			return
		}
		if v, _ := c.Getenv(Variable(f.Name)); v != "" && !otherMeaning(f.Name) {
			if err := set(flags, f, v); err != nil {
				failed = fmt.Errorf("%s: %w", Variable(f.Name), err)
			}
		}
	})
	return failed
}

// set gives a flag a value. Unlike FlagSet.Set its error does not repeat the value.
func set(flags *pflag.FlagSet, f *pflag.Flag, v string) error {
	err := flags.Set(f.Name, v)
	if err == nil {
		return nil
	}
	var invalid *pflag.InvalidValueError
	switch {
	case f.Value.Type() == "bool":
		return errors.New("must be true or false")
	case errors.As(err, &invalid) && invalid.Unwrap() != nil:
		return invalid.Unwrap()
	}
	return errors.New("has an invalid value")
}

// FromFile sets flags from a strict YAML mapping: keys are the names of flags, each at most once, and each value has
// its flag's type. A file may hold the settings of every command; for settings of other commands only the names are
// checked, against known.
func FromFile(flags *pflag.FlagSet, text []byte, known *pflag.FlagSet) error {
	mapping, err := document(text)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		name := key.Value
		f := flags.Lookup(name)
		mine := f != nil && name != "config" && name != "help" && f.Annotations[cli.ArgumentOnly] == nil
		switch {
		case !mine && known.Lookup(name) == nil:
			return fmt.Errorf("line %d: unknown key %q", key.Line, name)
		case seen[name]:
			return fmt.Errorf("line %d: key %q stands twice", key.Line, name)
		}
		seen[name] = true
		if !mine {
			f = known.Lookup(name)
		}
		values, err := scalars(f.Value.Type(), value)
		if err != nil {
			return fmt.Errorf("line %d: %s: %w", value.Line, name, err)
		}
		if !mine || f.Changed {
			continue
		}
		for _, v := range values {
			if err := set(flags, f, v); err != nil {
				return fmt.Errorf("line %d: %s: %w", value.Line, name, err)
			}
		}
	}
	return nil
}

// document reads the one mapping of a file. An empty file is an empty mapping.
func document(text []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return &yaml.Node{Kind: yaml.MappingNode}, nil
	} else if err != nil {
		return nil, errors.New("it is not YAML: " + strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if dec.Decode(&more) == nil {
		return nil, errors.New("it holds more than one document")
	}
	if len(doc.Content) == 1 && doc.Content[0].Tag == "!!null" {
		return &yaml.Node{Kind: yaml.MappingNode}, nil
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("it must be lines of `flag: value`")
	}
	return doc.Content[0], nil
}

// scalars reads the value of a flag of the given type.
func scalars(kind string, n *yaml.Node) ([]string, error) {
	list := kind == "stringArray"
	if list && n.Kind == yaml.SequenceNode {
		var out []string
		for _, e := range n.Content {
			if e.Kind != yaml.ScalarNode || e.Tag != "!!str" {
				return nil, errors.New("must be a list of texts")
			}
			out = append(out, e.Value)
		}
		return out, nil
	}
	want, text := "!!str", "a text; put it in quotes"
	switch {
	case list:
		text = "a list of texts"
	case kind == "bool":
		want, text = "!!bool", "true or false"
	case kind == "int":
		want, text = "!!int", "a number"
	case kind == "duration":
		text = "a duration such as 90s, 12h or 180d"
	case kind == "size":
		text = "a size such as 256MiB or 1GiB"
	case kind == "rate" && (n.Tag == "!!int" || n.Tag == "!!float"):
		want = n.Tag
	case kind == "rate":
		text = "a number, or off"
	}
	if n.Kind != yaml.ScalarNode || n.Tag != want {
		return nil, errors.New("must be " + text)
	}
	return []string{n.Value}, nil
}

// AllSettings returns all flags that a configuration file can set: those of the store and of serving, and more.
func AllSettings(more func(*pflag.FlagSet)) *pflag.FlagSet {
	all := pflag.NewFlagSet("settings", pflag.ContinueOnError)
	var s Settings
	s.ServeFlags(all)
	more(all)
	return all
}

// otherMeaning reports whether a flag's variable means something else: PATD_TOKEN holds a secret, and images often set
// PATD_VERSION to their own version.
func otherMeaning(flag string) bool { return flag == "token" || flag == "version" }
