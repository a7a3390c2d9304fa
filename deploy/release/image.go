package main

import (
	"archive/tar"
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

const (
	// imageUser is nonroot of distroless images.
	imageUser = 65532
	imageData = "/var/lib/patd"
)

// image writes an OCI layout of all architectures, as a tar file that skopeo, crane, podman and docker load.
func (r *release) image(made *artifacts) error {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range r.arches {
		img, err := r.imageOf(arch)
		if err != nil {
			return fmt.Errorf("make the image for %s: %w", arch, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	index, ok := mutate.Annotations(index, r.annotations()).(v1.ImageIndex)
	if !ok {
		return fmt.Errorf("annotate the image: it is no index")
	}
	dir := filepath.Join(r.work, "image")
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return fmt.Errorf("make the layout of the image: %w", err)
	}
	name := map[string]string{"org.opencontainers.image.ref.name": fileName(r.version)}
	if err := path.AppendIndex(index, layout.WithAnnotations(name)); err != nil {
		return fmt.Errorf("write the image: %w", err)
	}
	digest, err := index.Digest()
	if err != nil {
		return fmt.Errorf("name the image: %w", err)
	}
	base := "patd_" + fileName(r.version) + "_image"
	if err := made.create(base+".digest", func(w io.Writer) error {
		_, err := fmt.Fprintln(w, digest)
		return err
	}); err != nil {
		return err
	}
	return made.create(base+".tar", func(w io.Writer) error { return r.tarOf(w, dir) })
}

func (r *release) annotations() map[string]string {
	return map[string]string{
		"org.opencontainers.image.title": "patd", "org.opencontainers.image.description": summary,
		"org.opencontainers.image.version": number(r.version), "org.opencontainers.image.revision": r.commit,
		"org.opencontainers.image.created": r.at.Format("2006-01-02T15:04:05Z07:00"),
	}
}

// imageOf makes the image of one architecture: the roots of trust in one layer, the binary in another.
func (r *release) imageOf(arch string) (v1.Image, error) {
	binary, err := os.ReadFile(r.binaries[arch])
	if err != nil {
		return nil, err
	}
	dir := func(name string) file { return file{name: name, mode: 0o755} }
	base := []file{
		dir("etc/"), {name: "etc/passwd", mode: 0o644, text: []byte(fmt.Sprintf(
			"root:x:0:0:root:/:/sbin/nologin\npatd:x:%d:%d:patd:%s:/sbin/nologin\n", imageUser, imageUser, imageData))},
		{name: "etc/group", mode: 0o644, text: []byte(fmt.Sprintf("root:x:0:\npatd:x:%d:\n", imageUser))},
		dir("etc/ssl/"), dir("etc/ssl/certs/"), {name: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, text: roots()},
		{name: "tmp/", mode: 0o1777},
		dir("var/"), dir("var/lib/"), {name: "var/lib/patd/", mode: 0o700, uid: imageUser},
	}
	top := []file{dir("usr/"), dir("usr/bin/"), {name: "usr/bin/patd", mode: 0o755, text: binary}}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, content := range []struct {
		by    string
		files []file
	}{{"roots of trust, user and volume", base}, {"patd " + r.version, top}} {
		var b bytes.Buffer
		if err := writeTar(&b, r.at, content.files); err != nil {
			return nil, err
		}
		layer, err := tarball.LayerFromOpener(
			func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil },
			tarball.WithMediaType(types.OCILayer),
		)
		if err != nil {
			return nil, err
		}
		if img, err = mutate.Append(img, mutate.Addendum{
			Layer: layer, History: v1.History{Created: v1.Time{Time: r.at}, CreatedBy: content.by},
		}); err != nil {
			return nil, err
		}
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", arch, v1.Time{Time: r.at}
	config.Config = v1.Config{
		User: fmt.Sprintf("%d:%d", imageUser, imageUser), WorkingDir: imageData,
		Entrypoint: []string{"/usr/bin/patd"}, Cmd: []string{"serve"},
		// All addresses, since loopback is the container's own: patd then demands TLS, or --insecure.
		Env: []string{
			"PATH=/usr/bin", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
			"PATD_DATA_DIR=" + imageData, "PATD_HTTP_ADDR=:8080", "PATD_GRPC_ADDR=:9090",
		},
		ExposedPorts: map[string]struct{}{"8080/tcp": {}, "9090/tcp": {}}, Volumes: map[string]struct{}{imageData: {}},
		Labels: r.annotations(), StopSignal: "SIGTERM",
	}
	return mutate.ConfigFile(img, config)
}

// roots are the certificates of the authorities that Mozilla trusts without conditions, from the module that go.mod
// pins.
func roots() []byte {
	var b bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil { // a file cannot say the others' conditions
			_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // a buffer takes all
		}
	}
	return b.Bytes()
}

// tarOf writes a directory in a fixed order.
func (r *release) tarOf(w io.Writer, dir string) error {
	t := tar.NewWriter(w)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		h := &tar.Header{
			Name:     filepath.ToSlash(name),
			Mode:     0o644,
			ModTime:  r.at,
			Typeflag: tar.TypeReg,
			Format:   tar.FormatUSTAR,
		}
		if d.IsDir() {
			h.Name, h.Mode, h.Typeflag = h.Name+"/", 0o755, tar.TypeDir
			return t.WriteHeader(h)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		h.Size = int64(len(text))
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		_, err = t.Write(text)
		return err
	})
	if err != nil {
		return err
	}
	return t.Close()
}
