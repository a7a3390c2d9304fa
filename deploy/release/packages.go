package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/goreleaser/nfpm/v2"
	"github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
	"github.com/goreleaser/nfpm/v2/rpm"
)

const (
	summary    = "Personal access tokens: mint, list, rotate, revoke, introspect"
	maintainer = "patd maintainers <maintainers@patd.invalid>"
)

// packages writes the Debian and the RPM package of an architecture, under a version.
func (r *release) packages(made *artifacts, arch, version string) error {
	for name, packager := range map[string]nfpm.Packager{"deb": deb.Default, "rpm": rpm.DefaultRPM} {
		info, err := r.info(name, arch, version)
		if err != nil {
			return err
		}
		if err := nfpm.PrepareForPackager(info, name); err != nil {
			return fmt.Errorf("prepare the %s package: %w", name, err)
		}
		if err := made.create(
			packager.ConventionalFileName(info),
			func(w io.Writer) error { return packager.Package(info, w) },
		); err != nil {
			return err
		}
	}
	return nil
}

// info describes a package.
func (r *release) info(packager, arch, version string) (*nfpm.Info, error) {
	contents, err := r.contents(packager, arch)
	if err != nil {
		return nil, err
	}
	script := func(name string) string { return filepath.Join(r.root, "deploy/package", packager, name) }
	// A hyphen parts the version from the revision.
	first, rest, _ := strings.Cut(number(version), "-")
	if rest != "" {
		first += "-" + strings.ReplaceAll(rest, "-", ".")
	}
	info := &nfpm.Info{
		Name: "patd", Arch: arch, Platform: "linux", Version: first, Release: "1", Section: "net", Priority: "optional",
		Maintainer: maintainer, Description: summary, MTime: r.at, DisableGlobbing: true,
		Overridables: nfpm.Overridables{
			Contents: contents,
			Umask:    0o022,
			Scripts: nfpm.Scripts{
				PostInstall: script("postinst"),
				PreRemove:   script("prerm"),
				PostRemove:  script("postrm"),
			},
			RPM: nfpm.RPM{
				Summary:     summary,
				BuildHost:   "localhost",
				Compression: "zstd",
				Group:       "System Environment/Daemons",
			},
			Deb: nfpm.Deb{Compression: "zstd"}, // dpkg of Debian 12 and of Ubuntu 18.04
		},
	}
	if packager == "deb" {
		info.Depends = []string{"passwd", "init-system-helpers (>= 1.54~)"}
		info.Recommends = []string{"ca-certificates"}
		return nfpm.WithDefaults(info), nil
	}
	info.Scripts.PreInstall = script("preinst")
	info.Depends = []string{"/bin/sh", "shadow-utils"}
	info.Recommends = []string{"ca-certificates"}
	return nfpm.WithDefaults(info), nil
}

// contents are the files of a package.
func (r *release) contents(packager, arch string) (files.Contents, error) {
	var out files.Contents
	put := func(dst string, text []byte, mode os.FileMode) error {
		src := filepath.Join(r.work, packager+"-"+arch, filepath.FromSlash(dst))
		if err := os.MkdirAll(filepath.Dir(src), 0o755); err != nil {
			return fmt.Errorf("lay out the package: %w", err)
		}
		if err := os.WriteFile(src, text, 0o600); err != nil {
			return fmt.Errorf("lay out the package: %w", err)
		}
		out = append(out, &files.Content{
			Source:      src,
			Destination: dst,
			FileInfo:    &files.ContentFileInfo{Owner: "root", Group: "root", Mode: mode, MTime: r.at},
		})
		return nil
	}
	binary, err := os.ReadFile(r.binaries[arch])
	if err != nil {
		return nil, fmt.Errorf("read the binary: %w", err)
	}
	if err := put("/usr/bin/patd", binary, 0o755); err != nil {
		return nil, err
	}
	for _, unit := range []string{"patd.service", "patd-http.socket", "patd-grpc.socket"} {
		text, err := r.read("deploy/" + unit)
		if err == nil {
			err = put(
				"/usr/lib/systemd/system/"+unit,
				[]byte(strings.ReplaceAll(string(text), "/usr/local/bin/", "/usr/bin/")),
				0o644,
			)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, name := range sorted(r.share) {
		dst := "/usr/share/" + name
		if packager == "rpm" {
			dst = strings.Replace(dst, "/zsh/vendor-completions/", "/zsh/site-functions/", 1)
		}
		if err := put(dst, r.share[name], 0o644); err != nil {
			return nil, err
		}
	}
	list, err := r.materials(arch)
	if err == nil {
		err = put("/usr/share/doc/patd/patd.cdx.json", list, 0o644)
	}
	if err != nil {
		return nil, err
	}
	settings, err := r.read("deploy/patd.yaml")
	if err == nil {
		err = put("/etc/patd/patd.yaml", settings, 0o640)
	}
	if err != nil {
		return nil, err
	}
	last := out[len(out)-1]
	last.Type = files.TypeConfigNoReplace
	if packager == "rpm" {
		last.FileInfo.Group = "patd" // made by preinst; of Debian's package it is set by postinst
	}
	return out, nil
}
