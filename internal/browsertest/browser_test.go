//go:build !race

package browsertest

import "testing"

// TestTheLifeOfATokenByKeyboardAlone signs in, makes a token, copies its secret, uses it, rotates, narrows, renames and
// revokes it, and signs out, with the keys of the keyboard only; and all of it again in a browser without JavaScript.
func TestTheLifeOfATokenByKeyboardAlone(t *testing.T) { inShared(t, "life.mjs") }

// TestPagesAreAccessibleInEveryLook shows every page at 320 and 1280 pixels, light, dark, in forced colours and at 200 %
// zoom: none is wider than the window, and axe-core finds nothing.
func TestPagesAreAccessibleInEveryLook(t *testing.T) { inShared(t, "matrix.mjs") }
