package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// statement is an in-toto statement of SLSA provenance, version 1, without a signature.
type statement struct {
	Type          string    `json:"_type"`
	Subject       []subject `json:"subject"`
	PredicateType string    `json:"predicateType"`
	Predicate     predicate `json:"predicate"`
}

type subject struct {
	Name   string            `json:"name,omitempty"`
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest"`
}

type predicate struct {
	BuildDefinition struct {
		BuildType            string            `json:"buildType"`
		ExternalParameters   map[string]string `json:"externalParameters"`
		InternalParameters   map[string]string `json:"internalParameters"`
		ResolvedDependencies []subject         `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
	RunDetails struct {
		Builder struct {
			ID string `json:"id"`
		} `json:"builder"`
	} `json:"runDetails"`
}

// provenance writes from what commit, with what Go and by what builder each file was made. Whoever builds signs it.
func (r *release) provenance(ctx context.Context, made *artifacts) error {
	s := statement{Type: "https://in-toto.io/Statement/v1", PredicateType: "https://slsa.dev/provenance/v1"}
	names := slices.Sorted(slices.Values(made.names))
	for _, name := range names {
		sum, err := sumOf(filepath.Join(made.dir, name))
		if err != nil {
			return err
		}
		s.Subject = append(s.Subject, subject{Name: name, Digest: map[string]string{"sha256": sum}})
	}
	d := &s.Predicate.BuildDefinition
	d.BuildType = "https://patd.invalid/release/v1"
	d.ExternalParameters = map[string]string{"version": r.version, "architectures": strings.Join(r.arches, ",")}
	d.InternalParameters = map[string]string{
		"go":              r.goVersion,
		"host":            runtime.GOOS + "/" + runtime.GOARCH,
		"sourceDateEpoch": fmt.Sprint(r.at.Unix()),
		"modified":        fmt.Sprint(r.modified),
	}
	for name, version := range r.toolVersions {
		d.InternalParameters[name] = version
	}
	tree, err := r.git(ctx, "rev-parse", "HEAD^{tree}")
	if err != nil {
		return err
	}
	d.ResolvedDependencies = []subject{
		{Name: "source", URI: "git+commit", Digest: map[string]string{"gitCommit": r.commit, "gitTree": tree}},
	}
	pins := []string{"go.sum", "deploy/release/go.sum"}
	for _, l := range r.libraries {
		if l.pins != "" {
			pins = append(pins, l.pins)
		}
	}
	for _, name := range pins {
		sum, err := sumOf(filepath.Join(r.root, name))
		if err != nil {
			return err
		}
		d.ResolvedDependencies = append(
			d.ResolvedDependencies,
			subject{Name: name, Digest: map[string]string{"sha256": sum}},
		)
	}
	s.Predicate.RunDetails.Builder.ID = "https://patd.invalid/deploy/release"
	return made.create("patd_"+fileName(r.version)+".provenance.json", func(w io.Writer) error {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(s)
	})
}

func (r *release) git(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = r.root
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// checksums writes the file that sha256sum --check reads.
func (a *artifacts) checksums() error {
	slices.Sort(a.names)
	var lines strings.Builder
	for _, name := range a.names {
		sum, err := sumOf(filepath.Join(a.dir, name))
		if err != nil {
			return err
		}
		fmt.Fprintf(&lines, "%s  %s\n", sum, name)
	}
	return a.create("SHA256SUMS", func(w io.Writer) error {
		_, err := io.WriteString(w, lines.String())
		return err
	})
}

func sumOf(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read what was built: %w", err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
