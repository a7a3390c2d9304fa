// Every page in every look: axe-core finds nothing, and nothing is wider than the window.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { pages } from './pages.mjs';
import { main, setup } from './lib.mjs';

const axe = readFileSync(new URL('node_modules/axe-core/axe.min.js', import.meta.url), 'utf8');

// 200 % zoom of 1280 pixels is a window of 640 with two pixels of the screen to each.
const colours = {
  light: { colorScheme: 'light', forcedColors: 'none' },
  dark: { colorScheme: 'dark', forcedColors: 'none' },
  forced: { colorScheme: 'dark', forcedColors: 'active' },
};
const looks = [320, 640, 1280].flatMap((width) => Object.entries(colours).map(([name, media]) => ({ name: `${width}-${name}`, width, media })));

// inspect runs in the page: it returns what sticks out of the window and what axe-core finds.
const inspect = async () => {
  const wrong = [];
  if (document.documentElement.scrollWidth > innerWidth) {
    for (const e of document.querySelectorAll('body *')) {
      const { right } = e.getBoundingClientRect();
      if (right > innerWidth + 0.5) wrong.push(`too wide: ${e.outerHTML.slice(0, 100)} to ${Math.ceil(right)} of ${innerWidth}`);
    }
    wrong.push(`too wide: ${document.documentElement.scrollWidth} of ${innerWidth}`);
  }
  const { violations } = await axe.run(document, { rules: { 'target-size': { enabled: true } }, resultTypes: ['violations'] });
  for (const v of violations) for (const n of v.nodes) wrong.push(`${v.id}: ${n.html.slice(0, 160)}: ${n.failureSummary}`);
  return wrong;
};

async function check(page, name, wrong) {
  for (const look of looks) {
    await page.setViewportSize({ width: look.width, height: 900 });
    await page.emulateMedia(look.media);
    for (const e of await page.evaluate(inspect)) wrong.push(`${name} ${look.name}: ${e}`);
    if (look.name !== '640-forced') await page.screenshot({ path: join(setup.pictures, `${name}-${look.name}.png`), fullPage: true });
  }
}

mkdirSync(setup.pictures, { recursive: true });
await main(Object.fromEntries(Object.entries(pages).map(([who, steps]) => [who, async (open) => {
  const { page } = await open();
  const wrong = [];
  for await (const name of steps(page)) {
    await page.evaluate(axe);
    await check(page, name, wrong);
  }
  assert.deepEqual(wrong, []);
}])));
