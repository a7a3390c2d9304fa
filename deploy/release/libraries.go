package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// library is one for programs in another language.
type library struct {
	name, needs string
	programs    []string // that must be in the path
	installed   []string // that must be in the tree
	pins        string   // the file that locks their versions
	build       func(*release, context.Context, *artifacts) error
}

// libraries are all of them.
var libraries = []library{
	{
		name: "java", needs: "Maven and a JDK of 17 or later",
		programs: []string{"mvn", "javac"}, build: (*release).java,
	},
	{
		name: "typescript", needs: "Node, npm, and what `npm ci --ignore-scripts` installs in sdk/typescript",
		programs: []string{"node", "npm"}, installed: []string{"sdk/typescript/node_modules/.package-lock.json"},
		pins: "sdk/typescript/package-lock.json", build: (*release).typescript,
	},
	{
		name:      "python",
		needs:     "a venv in sdk/python with what `venv/bin/pip install --require-hashes -r requirements.txt` installs",
		installed: []string{venv + "/bin/python", venv + "/bin/datamodel-codegen"},
		pins:      "sdk/python/requirements.txt",
		build:     (*release).python,
	},
	{
		name:  "csharp",
		needs: "Linux on amd64, and what `npm ci --ignore-scripts` installs in sdk/csharp/tools",
		installed: []string{
			dotnetRoot + "/dotnet",
			openssl + "/libssl.so.1.1",
			assemblies + "/Microsoft.Bcl.AsyncInterfaces.dll",
		},
		pins:  "sdk/csharp/tools/package-lock.json",
		build: (*release).csharp,
	},
}

// check returns what a library lacks to be built here. Tools are what is installed in a tree.
func (l library) check(tools string) error {
	missing := func(what string, err error) error {
		return fmt.Errorf(
			"the library for %s needs %s (-%s=false leaves it out): %s: %w",
			l.name,
			l.needs,
			l.name,
			what,
			err,
		)
	}
	for _, name := range l.programs {
		if _, err := exec.LookPath(name); err != nil {
			return missing(name, errors.Unwrap(err))
		}
	}
	for _, name := range l.installed {
		if _, err := os.Stat(filepath.Join(tools, filepath.FromSlash(name))); err != nil {
			return missing(name, fs.ErrNotExist)
		}
	}
	if at := runtime.GOOS + "/" + runtime.GOARCH; l.name == "csharp" && at != "linux/amd64" {
		return missing(at, errors.ErrUnsupported)
	}
	return nil
}

// buildLibraries builds those that are part of the release.
func (r *release) buildLibraries(ctx context.Context, made *artifacts) error {
	for _, l := range r.libraries {
		if err := l.build(r, ctx, made); err != nil {
			return fmt.Errorf("build the library for %s: %w", l.name, err)
		}
	}
	return nil
}

// installed returns the path of what is installed in a tree.
func (r *release) installed(name string) string {
	return filepath.Join(r.tools, filepath.FromSlash(name))
}

// tool runs a program in a directory, with more of an environment.
func tool(ctx context.Context, dir string, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return nil
}

// note records the version of a tool, for the provenance.
func (r *release) note(ctx context.Context, name, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = r.work, append(os.Environ(), r.dotnetEnvironment()...)
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("read the version of %s: %w", name, err)
	}
	r.toolVersions[name] = strings.TrimSpace(string(out))
	return nil
}

// copySource copies the files below some names of the source, except those that Git ignores, to a directory. Edit, if
// there is one, returns what becomes of a file; nil: it is left out.
func (r *release) copySource(
	ctx context.Context,
	to string,
	edit func(name string, text []byte) []byte,
	names ...string,
) error {
	out, err := r.git(
		ctx,
		append([]string{"ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"}, names...)...)
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(strings.TrimRight(out, "\x00"), "\x00") {
		text, err := r.read(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted, and not committed
		}
		if err != nil {
			return err
		}
		if edit != nil {
			if text = edit(name, text); text == nil {
				continue
			}
		}
		file := filepath.Join(to, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return fmt.Errorf("copy the source: %w", err)
		}
		if err := os.WriteFile(file, text, 0o600); err != nil {
			return fmt.Errorf("copy the source: %w", err)
		}
	}
	return nil
}

// add makes a file of the release out of one that a tool made.
func (a *artifacts) add(name, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read what was built: %w", err)
	}
	return a.create(name, func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	})
}

// replaced returns a text in which what stands there once is replaced.
func replaced(text []byte, from, to string) ([]byte, error) {
	if n := strings.Count(string(text), from); n != 1 {
		return nil, fmt.Errorf("%q stands there %d times, not once", from, n)
	}
	return []byte(strings.Replace(string(text), from, to, 1)), nil
}
