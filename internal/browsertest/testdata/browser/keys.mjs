// A person who has a keyboard only.
import assert from 'node:assert/strict';

// steps returns how many stops of Tab there may be from the focus to an element; negative: before it. A field for a date
// has several stops, so it is a guess.
const steps = (target) => {
  const stops = [...document.querySelectorAll('a[href], button, input:not([type="hidden"]), select, textarea, [tabindex="0"]')]
    .filter((e) => e === target || (e.checkVisibility() && !e.disabled));
  const from = stops.findIndex((e) => e === document.activeElement || e.compareDocumentPosition(document.activeElement) & 2);
  const there = stops[from] === document.activeElement;
  return stops.indexOf(target) - (from < 0 ? -1 : from - (there ? 0 : 1));
};

// seen reports whether an element has the focus, and one sees it.
const seen = (e) => {
  if (e !== document.activeElement) return false;
  const s = getComputedStyle(e);
  const box = e.getBoundingClientRect();
  if (s.outlineStyle === 'none' || !(parseFloat(s.outlineWidth) > 0)) return 'it has no outline';
  return box.bottom > 0 && box.top < innerHeight ? true : 'it is outside of the window';
};

// reach presses Tab, or Shift and Tab, until the focus is on an element, and checks that it can be seen.
export async function reach(page, locator) {
  const n = await locator.evaluate(steps);
  const key = n < 0 ? 'Shift+Tab' : 'Tab';
  for (let pressed = 0; pressed < 150; pressed++) {
    if (pressed >= Math.abs(n)) {
      const found = await locator.evaluate(seen);
      if (found) {
        assert.equal(found, true, `the focus on ${locator}: ${found}`);
        return;
      }
    }
    await page.keyboard.press(key);
  }
  assert.fail(`${key} does not reach ${locator}`);
}

// press reaches a button or a link and presses Enter.
export async function press(page, locator) {
  await reach(page, locator);
  await page.keyboard.press('Enter');
}

// go is press with a wait for the page that follows.
export async function go(page, locator) {
  await reach(page, locator);
  await Promise.all([page.waitForEvent('domcontentloaded'), page.keyboard.press('Enter')]);
}

// type reaches a field and types a text in place of what is in it.
export async function type(page, locator, text) {
  await reach(page, locator);
  await page.keyboard.press('ControlOrMeta+a');
  await page.keyboard.type(text);
}

// choose reaches a list of choices and goes through it with the arrows.
export async function choose(page, locator, label) {
  await reach(page, locator);
  await page.keyboard.press('Home');
  for (let n = 0; n < 20; n++) {
    if (await locator.evaluate((e) => e.selectedOptions[0].textContent) === label) return;
    await page.keyboard.press('ArrowDown');
  }
  assert.fail(`the arrows do not reach ${label}`);
}

// tick reaches a checkbox and changes it.
export async function tick(page, locator) {
  await reach(page, locator);
  await page.keyboard.press('Space');
}
