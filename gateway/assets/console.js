// The console's only script: four custom elements. Every page works without it.
// No personal data is stored: no localStorage, sessionStorage, IndexedDB or cookie is written here.
'use strict';

const policy = window.trustedTypes
  ? window.trustedTypes.createPolicy('hie', { createHTML: (html) => html })
  : { createHTML: (html) => html };

/** Parses HTML of our own server; scripts in it never run, because a template's content is inert and CSP forbids inline code. */
function parse(html) {
  const template = document.createElement('template');
  template.innerHTML = policy.createHTML(html);
  return template.content;
}

const clock = () => new Date().toTimeString().slice(0, 8);

/** <live-record data-src data-from>: replaces the parts that changed, keeps focus, open folds and scroll. */
class LiveRecord extends HTMLElement {
  connectedCallback() {
    if (this.hasAttribute('data-ended')) return;
    this.seen = clock();
    this.from = this.dataset.from;
    this.connect();
  }

  connect() {
    this.source = new EventSource(`${this.dataset.src}?from=${this.from}`);
    this.source.addEventListener('step', (event) => {
      this.from = event.lastEventId;
      this.step(JSON.parse(event.data));
    });
    this.source.addEventListener('done', () => this.finish());
    this.source.addEventListener('closed', () => { this.finish(); location.reload(); });
    this.source.addEventListener('open', () => this.say('lost', ''));
    this.source.addEventListener('error', () => {
      if (!this.source) return;
      this.say('lost', `Connection lost at ${clock()}. What you see was complete to ${this.seen}. Reconnecting.`);
      // The browser reconnects by itself after a broken line, but not after a refusal.
      if (this.source.readyState === EventSource.CLOSED) {
        this.finish();
        this.again = setTimeout(() => this.connect(), 3000);
      }
    });
  }

  disconnectedCallback() { this.finish(); }

  finish() {
    clearTimeout(this.again);
    if (this.source) { this.source.close(); this.source = null; }
  }

  say(id, words) {
    const line = document.getElementById(id);
    if (!line) return;
    line.textContent = words;
    if (id === 'lost') line.hidden = words === '';
  }

  step(data) {
    this.seen = clock();
    if (data.html) this.merge(parse(data.html));
    if (data.said) this.say('said', data.said);
  }

  merge(fresh) {
    const focus = document.activeElement && document.activeElement.getAttribute
      ? document.activeElement.getAttribute('href') || document.activeElement.id : '';
    for (const part of fresh.querySelectorAll('[data-part]')) {
      const old = this.querySelector(`#${part.id}`);
      if (!old || old.outerHTML === part.outerHTML) continue;
      const open = new Set([...old.querySelectorAll('details[open][data-keep]')].map((fold) => fold.dataset.keep));
      const held = old.contains(document.activeElement);
      for (const fold of part.querySelectorAll('details[data-keep]')) fold.open = open.has(fold.dataset.keep);
      old.replaceWith(part);
      if (held && focus) {
        const again = [...part.querySelectorAll('a,button,summary,[id]')]
          .find((one) => one.getAttribute('href') === focus || one.id === focus);
        if (again) again.focus({ preventScroll: true });
      }
    }
  }
}

/** <send-form data-target="id">: sends the form inside and swaps the target with the answer's element of that id. */
class SendForm extends HTMLElement {
  connectedCallback() {
    this.addEventListener('submit', (event) => {
      const form = event.target;
      event.preventDefault();
      this.send(form, event.submitter).catch(() => form.submit());
    });
  }

  async send(form, button) {
    const fields = new URLSearchParams(new FormData(form, button));
    const answer = await fetch(form.action, { method: 'POST', body: fields, redirect: 'follow', credentials: 'same-origin' });
    const id = this.dataset.target;
    const next = parse(await answer.text()).querySelector(`#${id}`);
    const now = document.getElementById(id);
    if (!next || !now || answer.redirected) { location.assign(answer.redirected ? answer.url : location.href); return; }
    now.replaceWith(next);
    next.focus({ preventScroll: true });
  }
}

/** <key-map>: a key presses the element with that data-key; up and down move in a list of results. */
class KeyMap extends HTMLElement {
  connectedCallback() {
    this.onKey = (event) => this.press(event);
    document.addEventListener('keydown', this.onKey);
  }

  disconnectedCallback() { document.removeEventListener('keydown', this.onKey); }

  press(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const typing = event.target.matches && event.target.matches('input:not([type=radio]):not([type=checkbox]),textarea,select');
    if (event.key === 'ArrowDown' || event.key === 'ArrowUp') { this.move(event); return; }
    if (typing) return;
    const key = event.key.toLowerCase();
    if (key === 'i') { this.originals(); return; }
    const wanted = [...document.querySelectorAll('[data-key]')].find((one) => one.dataset.key === key);
    if (!wanted) return;
    event.preventDefault();
    if (wanted.matches('input')) wanted.focus(); else wanted.click();
  }

  /** Opens or closes the originals of every row. */
  originals() {
    const folds = [...document.querySelectorAll('details.src-more')];
    const open = folds.some((fold) => !fold.open);
    folds.forEach((fold) => { fold.open = open; });
  }

  move(event) {
    const buttons = [...document.querySelectorAll('.hits button')];
    if (buttons.length === 0) return;
    const at = buttons.indexOf(document.activeElement);
    const next = event.key === 'ArrowDown' ? Math.min(at + 1, buttons.length - 1) : Math.max(at - 1, 0);
    event.preventDefault();
    buttons[next].focus();
  }
}

/** <idle-lock data-seconds>: warns before the session ends, then blanks the page and signs out. */
class IdleLock extends HTMLElement {
  connectedCallback() {
    this.last = Date.now();
    this.told = Date.now();
    this.onUse = () => { this.last = Date.now(); this.hidden = true; this.tell(); };
    for (const kind of ['keydown', 'pointerdown']) document.addEventListener(kind, this.onUse, { passive: true });
    this.timer = setInterval(() => this.look(), 5000);
  }

  disconnectedCallback() {
    clearInterval(this.timer);
    for (const kind of ['keydown', 'pointerdown']) document.removeEventListener(kind, this.onUse);
  }

  /** Tells the server that the screen is in use: its session would end while somebody types here. */
  tell() {
    if (Date.now() - this.told < 60000) return;
    this.told = Date.now();
    fetch('/', { method: 'HEAD', redirect: 'manual', credentials: 'same-origin' }).catch(() => {});
  }

  look() {
    const idle = (Date.now() - this.last) / 1000;
    const limit = Number(this.dataset.seconds);
    if (idle > limit) {
      clearInterval(this.timer);
      const leave = document.getElementById('sign-out');
      document.body.hidden = true;
      if (leave) leave.submit();
    } else {
      this.hidden = idle < limit - 60;
    }
  }
}

customElements.define('live-record', LiveRecord);
customElements.define('send-form', SendForm);
customElements.define('key-map', KeyMap);
customElements.define('idle-lock', IdleLock);

for (const button of document.querySelectorAll('[data-print]')) {
  button.hidden = false;
  button.addEventListener('click', () => window.print());
}
