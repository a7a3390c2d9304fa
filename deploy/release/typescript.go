package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// typescript writes the npm package of the library for TypeScript, as `npm pack` makes it.
func (r *release) typescript(ctx context.Context, made *artifacts) error {
	work := filepath.Join(r.work, "typescript")
	if err := r.copySource(ctx, work, nil, "sdk/typescript", document); err != nil {
		return err
	}
	dir := filepath.Join(work, "sdk", "typescript")
	manifest := filepath.Join(dir, "package.json")
	text, err := os.ReadFile(manifest)
	if err == nil {
		text, err = replaced(text, `"version": "0.0.0"`, `"version": "`+packageVersion(r.version)+`"`)
	}
	if err == nil {
		err = os.WriteFile(manifest, text, 0o600)
	}
	if err == nil {
		err = os.Symlink(r.installed("sdk/typescript/node_modules"), filepath.Join(dir, "node_modules"))
	}
	if err != nil {
		return fmt.Errorf("lay out the package: %w", err)
	}
	for _, args := range [][]string{
		{"run", "--silent", "compile"}, {"pack", "--silent", "--ignore-scripts", "--pack-destination", work},
	} {
		if err := tool(ctx, dir, nil, "npm", args...); err != nil {
			return err
		}
	}
	for _, name := range []string{"node", "npm"} {
		if err := r.note(ctx, name, name, "--version"); err != nil {
			return err
		}
	}
	return made.add(
		"patd-npm-"+fileName(r.version)+".tgz",
		filepath.Join(work, "patd-"+packageVersion(r.version)+".tgz"),
	)
}
