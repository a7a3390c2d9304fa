package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// release is one version of patd, built for each architecture.
type release struct {
	root, work string
	tools      string // the tree in which those of the libraries are installed
	arches     []string
	libraries  []library         // for other languages, that are part of it
	binaries   map[string]string // by architecture
	share      map[string][]byte // /usr/share: pages of the manual, completions

	version, commit, goVersion string
	toolVersions               map[string]string // that the libraries were built with
	modified                   bool
	at                         time.Time // of everything in it
}

// newRelease builds the binaries, and reads from them what they are.
func newRelease(ctx context.Context, root string, arches []string) (*release, error) {
	tools, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("find the source: %w", err)
	}
	work, err := os.MkdirTemp("", "patd-release-")
	if err != nil {
		return nil, fmt.Errorf("make a directory to work in: %w", err)
	}
	r := &release{
		root:         root,
		tools:        tools,
		work:         work,
		arches:       arches,
		binaries:     map[string]string{},
		toolVersions: map[string]string{},
	}
	if err := r.build(ctx); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// close removes what is not in the release.
func (r *release) close() { _ = os.RemoveAll(r.work) }

func (r *release) build(ctx context.Context) error {
	for _, arch := range r.arches {
		file, err := r.compile(ctx, "linux", arch)
		if err != nil {
			return err
		}
		r.binaries[arch] = file
	}
	host := r.binaries[runtime.GOARCH]
	if host == "" || runtime.GOOS != "linux" {
		var err error
		if host, err = r.compile(ctx, runtime.GOOS, runtime.GOARCH); err != nil {
			return err
		}
	}
	if err := r.identify(host); err != nil {
		return err
	}
	return r.manual(ctx, host)
}

// profile is where the bench spends its CPU time, which the compiler optimizes for; `make profile` makes it anew.
const profile = "cmd/patd/patd.pgo"

// compile builds patd as one static binary.
func (r *release) compile(ctx context.Context, system, arch string) (string, error) {
	file := filepath.Join(r.work, "patd-"+system+"-"+arch)
	cmd := exec.CommandContext(
		ctx,
		"go",
		"build",
		"-trimpath",
		"-buildvcs=true",
		"-ldflags=-s -w -buildid=",
		"-pgo="+profile,
		"-o",
		file,
		"./cmd/patd",
	)
	cmd.Dir = r.root
	cmd.Env = append(
		os.Environ(),
		"CGO_ENABLED=0",
		"GOOS="+system,
		"GOARCH="+arch,
		"GOFLAGS=",
		"GOAMD64=v1",
		"GOARM64=v8.0",
		"GOEXPERIMENT=",
	)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build patd for %s/%s: %w\n%s", system, arch, err, out)
	}
	return file, nil
}

// identify reads what the Go tool recorded in a binary.
func (r *release) identify(binary string) error {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return fmt.Errorf("read what patd was built from: %w", err)
	}
	r.version, r.goVersion = info.Main.Version, info.GoVersion
	var at string
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			r.commit = s.Value
		case "vcs.time":
			at = s.Value
		case "vcs.modified":
			r.modified = s.Value == "true"
		}
	}
	if r.commit == "" || !strings.HasPrefix(r.version, "v") {
		return errors.New("the binary does not say its version: build in a clone with its history")
	}
	if r.at, err = time.Parse(time.RFC3339, at); err != nil {
		return fmt.Errorf("read the time of the commit: %w", err)
	}
	if text := os.Getenv("SOURCE_DATE_EPOCH"); text != "" {
		seconds, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return fmt.Errorf("read SOURCE_DATE_EPOCH: %w", err)
		}
		r.at = time.Unix(seconds, 0)
	}
	r.at = r.at.UTC()
	return nil
}

// manual has the binary write its pages and completions.
func (r *release) manual(ctx context.Context, binary string) error {
	dir := filepath.Join(r.work, "share")
	cmd := exec.CommandContext(ctx, binary, "manual", dir)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+strconv.FormatInt(r.at.Unix(), 10))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("write the manual: %w\n%s", err, out)
	}
	r.share = map[string][]byte{}
	return filepath.WalkDir(dir, func(file string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(filepath.ToSlash(strings.TrimPrefix(file, dir)), "/")
		if strings.HasPrefix(name, "man/") {
			name += ".gz"
			if text, err = zipped(text); err != nil {
				return err
			}
		}
		r.share[name] = text
		return nil
	})
}

// zipped compresses without a name and a time.
func zipped(text []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err = w.Write(text); err != nil {
		return nil, err
	}
	if err = w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// number is the version without its v.
func number(version string) string { return strings.TrimPrefix(version, "v") }

// fileName is the version in the names of files, where + has a meaning to some.
func fileName(version string) string { return strings.ReplaceAll(number(version), "+", "-") }

// file is a file or a directory (a name with / at its end) of an archive.
type file struct {
	name string
	mode int64
	uid  int
	text []byte
}

// writeTar writes files in their order, with the time of the release and no trace of the machine.
func writeTar(w io.Writer, at time.Time, files []file) error {
	t := tar.NewWriter(w)
	for _, f := range files {
		h := &tar.Header{
			Name:     f.name,
			Mode:     f.mode,
			Uid:      f.uid,
			Gid:      f.uid,
			ModTime:  at,
			Size:     int64(len(f.text)),
			Typeflag: tar.TypeReg,
			Format:   tar.FormatUSTAR,
		}
		if strings.HasSuffix(f.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(f.text); err != nil {
			return err
		}
	}
	return t.Close()
}

// read reads a file of the source.
func (r *release) read(name string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(r.root, filepath.FromSlash(name)))
	if err != nil {
		return nil, fmt.Errorf("read the source: %w", err)
	}
	return text, nil
}

// archive writes the binary with its manual, units and sample, for systems that have no packages of patd.
func (r *release) archive(made *artifacts, arch string) error {
	base := fmt.Sprintf("patd_%s_linux_%s", fileName(r.version), arch)
	binary, err := os.ReadFile(r.binaries[arch])
	if err != nil {
		return fmt.Errorf("read the binary: %w", err)
	}
	files := []file{{name: base + "/", mode: 0o755}, {name: base + "/patd", mode: 0o755, text: binary}}
	for _, name := range []string{"patd.yaml", "patd.service", "patd-http.socket", "patd-grpc.socket", "compose.yaml", "compose.three.yaml", "haproxy.cfg"} {
		text, err := r.read("deploy/" + name)
		if err != nil {
			return err
		}
		files = append(files, file{name: base + "/" + name, mode: 0o644, text: text})
	}
	for _, name := range sorted(r.share) {
		files = append(files, file{name: path.Join(base, "share", name), mode: 0o644, text: r.share[name]})
	}
	return made.create(base+".tar.gz", func(w io.Writer) error {
		z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
		if err != nil {
			return err
		}
		if err := writeTar(z, r.at, files); err != nil {
			return err
		}
		return z.Close()
	})
}
