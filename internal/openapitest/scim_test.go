//go:build !race

package openapitest

import (
	"os"
	"path/filepath"
	"testing"

	"patd/internal/longtest"
	"patd/internal/proctest"
)

// TestAPublicTesterOfSCIMFindsNoFault has scim2-tester try every call of SCIM. It gives users no externalId, so their
// userName is their id.
func TestAPublicTesterOfSCIMFindsNoFault(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	python, err := filepath.Abs(filepath.Join(pythonDir, "venv", "bin", "python"))
	must(t, err)
	if _, err := os.Stat(python); err != nil {
		proctest.Missing(t, "scim2-tester (requirements.txt of internal/openapitest/"+pythonDir+", in a venv there)")
	}
	program, err := filepath.Abs(filepath.Join(pythonDir, "scim.py"))
	must(t, err)
	p := serve(t, "--scim-user-id", "userName")
	out, err := run(t, t.TempDir(), []string{"PATD_URL=" + p.url, "PATD_TOKEN=" + p.admin}, python, program)
	if err != nil {
		t.Errorf("scim2-tester: %v\n%s", err, out)
	}
	t.Log(out[max(0, len(out)-100):])
}
