package dbtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// image is the directory of a PostgreSQL server that was never started, kept in memory: to make one takes a second of
// CPU, and the tests of a process start up to a dozen servers.
type image struct {
	password string
	files    []imageFile // each directory before what it holds
}

type imageFile struct {
	path    string
	mode    fs.FileMode
	content []byte
}

// fresh are the images of this process by the directory of the programs, once the first server of each was made.
var fresh struct {
	sync.Mutex
	images map[string]*image
}

// readImage reads a directory.
func readImage(dir, password string) (*image, error) {
	img := &image{password: password}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		file := imageFile{mode: info.Mode()}
		if file.path, err = filepath.Rel(dir, path); err != nil {
			return err
		}
		if !d.IsDir() {
			if file.content, err = os.ReadFile(path); err != nil { //nolint:gosec // what was just made
				return err
			}
		}
		img.files = append(img.files, file)
		return nil
	})
	return img, err
}

// write makes a directory of the image, and the account its owner.
func (img *image) write(dir string, a account) error {
	for _, file := range img.files {
		path := filepath.Join(dir, file.path)
		var err error
		if file.mode.IsDir() {
			err = os.Mkdir(path, file.mode.Perm())
		} else {
			err = os.WriteFile(path, file.content, file.mode.Perm())
		}
		if err == nil {
			err = a.give(path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
