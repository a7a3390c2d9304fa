// Release builds what operators install out of the source of patd: the image, Debian and RPM packages, archives and the
// chart, with their bills of materials, their provenance and their checksums, and the packages of the libraries for
// other languages. It is a module of its own, so that what it needs does not stand in patd's go.mod.
//
//	go run -C deploy/release . -out dist
//
// The version is what the Go tool makes of the tag. The same commit and tools make the same bytes: times are those of
// the commit, or SOURCE_DATE_EPOCH, and nothing of the machine enters.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "release: %v\n", err)
		os.Exit(1)
	}
}

// run reads the flags and builds.
func run(ctx context.Context, args []string, stderr io.Writer) error {
	f := flag.NewFlagSet("release", flag.ContinueOnError)
	f.SetOutput(stderr)
	root := f.String("root", "../..", "the `directory` of the source")
	out := f.String("out", "../../dist", "the `directory` to write to; files of an earlier release are replaced")
	arches := f.String("arch", "amd64,arm64", "architectures, comma-separated")
	with := make([]*bool, len(libraries))
	for i, l := range libraries {
		with[i] = f.Bool(l.name, true, "build the library for "+l.name+" too, which needs "+l.needs)
	}
	changed := f.Bool("changed", false, "build from a tree with changes that are not committed; its version says so")
	if err := f.Parse(args); err != nil {
		return err
	}
	var chosen []library
	for i, l := range libraries {
		if !*with[i] {
			continue
		}
		if err := l.check(*root); err != nil {
			return err
		}
		chosen = append(chosen, l)
	}
	r, err := newRelease(ctx, *root, strings.Split(*arches, ","))
	if err != nil {
		return err
	}
	defer r.close()
	r.libraries = chosen
	if err := r.refuse(*changed); err != nil {
		return err
	}
	if err := r.all(ctx, *out); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stderr, "patd %s is in %s\n", r.version, *out)
	return err
}

// refuse returns why no release is made of this tree.
func (r *release) refuse(changed bool) error {
	if r.modified && !changed {
		return errors.New("the tree has changes that are not committed: commit them, or say -changed")
	}
	return nil
}

// all writes the whole release into a directory.
func (r *release) all(ctx context.Context, out string) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return fmt.Errorf("make the directory of the release: %w", err)
	}
	made := &artifacts{dir: out}
	for _, arch := range r.arches {
		if err := r.archive(made, arch); err != nil {
			return err
		}
		if err := r.sbom(made, arch); err != nil {
			return err
		}
		if err := r.packages(made, arch, r.version); err != nil {
			return err
		}
	}
	if err := r.image(made); err != nil {
		return err
	}
	if err := r.chart(made); err != nil {
		return err
	}
	if err := r.buildLibraries(ctx, made); err != nil {
		return err
	}
	if err := r.provenance(ctx, made); err != nil {
		return err
	}
	return made.checksums()
}

// artifacts are the files of a release.
type artifacts struct {
	dir   string
	names []string
}

// create makes a file of the release.
func (a *artifacts) create(name string, write func(io.Writer) error) (err error) {
	f, err := os.Create(filepath.Join(a.dir, name))
	if err != nil {
		return fmt.Errorf("make a file of the release: %w", err)
	}
	defer func() {
		if e := f.Close(); err == nil && e != nil {
			err = fmt.Errorf("write %s: %w", name, e)
		}
	}()
	if err = write(f); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	a.names = append(a.names, name)
	return nil
}
