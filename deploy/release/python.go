package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

const (
	// document is what the management clients are generated from.
	document = "gen/openapi/openapi.json"
	// venv has the tools of the library for Python.
	venv = "sdk/python/venv"
)

// pack calls the build backend of pyproject.toml, of the version that it asks for, as pip and build would.
const pack = `import flit_core, sys, tomllib
from flit_core import buildapi
with open("pyproject.toml", "rb") as file:
    wanted = tomllib.load(file)["build-system"]["requires"]
if wanted != ["flit_core==" + flit_core.__version__]:
    sys.exit(f"pyproject.toml asks for {wanted}, and flit_core {flit_core.__version__} is installed")
buildapi.build_wheel(sys.argv[1])
buildapi.build_sdist(sys.argv[1])
`

// python writes the wheel and the source distribution of the library for Python.
func (r *release) python(ctx context.Context, made *artifacts) error {
	version, err := pythonVersion(r.version)
	if err != nil {
		return err
	}
	work, program := filepath.Join(r.work, "python"), r.installed(venv+"/bin/python")
	if err := r.copySource(ctx, work, nil, "sdk/python", document); err != nil {
		return err
	}
	dir, out := filepath.Join(work, "sdk", "python"), filepath.Join(work, "out")
	project := filepath.Join(dir, "pyproject.toml")
	text, err := os.ReadFile(project)
	if err == nil {
		text, err = replaced(text, `version = "0.0.0"`, `version = "`+version+`"`)
	}
	if err == nil {
		err = os.WriteFile(project, text, 0o600)
	}
	if err == nil {
		err = os.Mkdir(out, 0o700)
	}
	if err != nil {
		return fmt.Errorf("lay out the package: %w", err)
	}
	env := []string{"PYTHONDONTWRITEBYTECODE=1", "SOURCE_DATE_EPOCH=" + strconv.FormatInt(r.at.Unix(), 10)}
	for _, args := range [][]string{{"scripts/generate.py"}, {"-c", pack, out}} {
		if err := tool(ctx, dir, env, program, args...); err != nil {
			return err
		}
	}
	if err := r.note(ctx, "python", program, "-c", "import platform; print(platform.python_version())"); err != nil {
		return err
	}
	for _, name := range []string{"patd-" + version + "-py3-none-any.whl", "patd-" + version + ".tar.gz"} {
		if err := made.add(name, filepath.Join(out, name)); err != nil {
			return err
		}
	}
	return nil
}
