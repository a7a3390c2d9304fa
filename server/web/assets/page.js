// What is nicer with a script. Every page works without it.

const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));

for (const e of all('[data-needs-script], [data-copy]')) e.hidden = false;

// Copy puts the secret on the clipboard.
for (const button of all('[data-copy]')) {
  button.addEventListener('click', async () => {
    const source = document.getElementById(button.dataset.copy);
    const said = document.querySelector('[data-copied]');
    try {
      await navigator.clipboard.writeText(source.textContent);
      said.textContent = button.dataset.done;
    } catch {
      const range = document.createRange();
      range.selectNodeContents(source);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
    }
  });
}

// The custom date is there when it is chosen, and the end of any other choice is said.
for (const select of all('[data-expiration]')) {
  const prefix = select.dataset.expiration;
  const date = document.querySelector(`[data-custom-of="${prefix}"]`);
  const end = document.querySelector(`[data-end-of="${prefix}"]`);
  const input = date.querySelector('input');
  const show = () => {
    const custom = select.value === 'custom';
    date.hidden = !custom;
    input.disabled = !custom;
    input.required = custom;
    end.textContent = select.selectedOptions[0]?.dataset.end ?? '';
  };
  select.addEventListener('change', show);
  show();
}

// A search among many scopes.
const search = document.getElementById('scope-search');
if (search) {
  search.addEventListener('input', () => {
    const wanted = search.value.trim().toLowerCase();
    for (const group of all('fieldset.group')) {
      const boxes = all('.check:has([name="scopes"])', group);
      for (const box of boxes) box.hidden = !box.textContent.toLowerCase().includes(wanted);
      if (boxes.length) group.hidden = boxes.every((box) => box.hidden);
    }
  });
  search.addEventListener('keydown', (event) => { if (event.key === 'Enter') event.preventDefault(); });
}

// Dialogs open without a new page.
for (const button of all('[data-dialog]')) {
  const dialog = document.getElementById(button.dataset.dialog);
  button.addEventListener('click', (event) => {
    event.preventDefault();
    dialog.showModal();
  });
}
for (const dialog of all('dialog[open]')) {
  dialog.close();
  dialog.showModal();
}

// A form that makes something is sent once; if it is sent twice, its key still makes one thing.
for (const form of all('form[data-once]')) {
  form.addEventListener('submit', (event) => {
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = 'yes';
  });
  addEventListener('pageshow', () => { delete form.dataset.sent; });
}

// Times are shown in the reader's own zone when pointed at.
for (const time of all('time[datetime]')) {
  const at = new Date(time.dateTime);
  if (!Number.isNaN(at.valueOf())) time.title = at.toLocaleString(undefined, { dateStyle: 'long', timeStyle: 'short' });
}

// In a company's own page the frame is as high as this page.
if (window.parent !== window) {
  const tell = () => window.parent.postMessage({ patd: 'height', height: document.body.offsetHeight }, '*');
  new ResizeObserver(tell).observe(document.body);
  tell();
  if (document.querySelector('[data-ended]')) window.parent.postMessage({ patd: 'ended' }, '*');
}

// The first error, or what was said, is where the reader goes on.
const wrong = document.querySelector('[aria-invalid="true"]') ?? document.querySelector('main [role="alert"]');
if (wrong) {
  if (!wrong.matches('input, select, textarea')) wrong.tabIndex = -1;
  wrong.focus();
}
