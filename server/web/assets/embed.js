// <patd-tokens handoff="/my/patd-handoff"></patd-tokens> shows a user's tokens in a company's own page.
//
// The element sends a POST to the company's own endpoint, which knows who is signed in, calls patd's
// /v1/users/{user}/page-sessions and answers {"url": …}. The address signs the frame in, once. When the session in the
// frame ends, the element asks again.

const again = 5000; // milliseconds between two hand-offs, so that a fault makes no flood

class PatdTokens extends HTMLElement {
  #frame;
  #last = -Infinity;
  #listen = (event) => this.#message(event);

  connectedCallback() {
    window.addEventListener('message', this.#listen);
    this.#show();
  }

  disconnectedCallback() {
    window.removeEventListener('message', this.#listen);
    this.#frame?.remove();
    this.#frame = undefined;
  }

  async #show() {
    if (performance.now() - this.#last < again) return;
    this.#last = performance.now();
    try {
      const response = await fetch(this.getAttribute('handoff'), { method: 'POST', credentials: 'same-origin' });
      if (!response.ok) throw new Error(`the hand-off answers ${response.status}`);
      const { url } = await response.json();
      if (!/^https?:$/.test(new URL(url).protocol)) throw new Error('the hand-off has no address');
      this.#open(url);
    } catch (error) {
      this.dispatchEvent(new CustomEvent('patd-error', { detail: error, bubbles: true }));
    }
  }

  #open(url) {
    this.#frame?.remove();
    const frame = document.createElement('iframe');
    frame.title = this.getAttribute('title') ?? 'Personal access tokens';
    frame.allow = 'clipboard-write';
    frame.referrerPolicy = 'no-referrer';
    frame.style.cssText = 'display:block;width:100%;border:0;height:30rem';
    frame.src = url;
    this.#frame = frame;
    this.append(frame);
  }

  #message({ source, origin, data }) {
    const frame = this.#frame;
    if (!frame || source !== frame.contentWindow || origin !== new URL(frame.src).origin) return;
    if (data?.patd === 'height' && data.height > 0) frame.style.height = `${Math.ceil(data.height)}px`;
    if (data?.patd === 'ended') this.#show();
  }
}

customElements.define('patd-tokens', PatdTokens);
