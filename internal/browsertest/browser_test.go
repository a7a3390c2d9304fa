//go:build !race

package browsertest

import (
	"testing"

	"patd/internal/longtest"
)

// TestTheLifeOfATokenByKeyboardAlone signs in, makes a token, copies its secret, uses it, rotates, narrows, renames and
// revokes it, and signs out, with the keys of the keyboard only; and all of it again in a browser without JavaScript.
func TestTheLifeOfATokenByKeyboardAlone(t *testing.T) { inShared(t, "life.mjs") }

// TestPagesAreAccessibleInEveryLook shows every page of users and operators at 320 and 1280 pixels, light, dark, in
// forced colours and at 200 % zoom: none is wider than the window, and axe-core finds nothing.
func TestPagesAreAccessibleInEveryLook(t *testing.T) {
	longtest.Only(t)
	inShared(t, "matrix.mjs")
}

// TestTextsOfOthersDoNotRunInABrowser puts texts that would run wherever a user, a feature, an audience, the provider,
// a link or a browser chooses one, and goes through every page of users and operators: no script runs, and the
// Content-Security-Policy stops nothing, since nothing comes as far.
func TestTextsOfOthersDoNotRunInABrowser(t *testing.T) {
	longtest.Only(t)
	inShared(t, "xss.mjs")
}

// TestStrangersAndTheImpatientDoNoHarm has pages of other origins, old and raced links, forged cookies, two tabs,
// double clicks, back and reload, and sessions that end in the middle of a form.
func TestStrangersAndTheImpatientDoNoHarm(t *testing.T) {
	longtest.Only(t)
	inShared(t, "hostile.mjs")
}

// TestOperatorsSeeInABrowserWhatTheyMay signs in people of each kind of operator, and one who is none: the pages that
// lead to each other are those that each may use, and the others say so.
func TestOperatorsSeeInABrowserWhatTheyMay(t *testing.T) {
	longtest.Only(t)
	inShared(t, "operators.mjs")
}
