// Drives a browser over the console example: pictures of every page in two sizes and two themes, what must stand above
// the fold, the keys, the stream, the idle lock, and no violation of the Content Security Policy or Trusted Types.
//
//   cargo build -p hie-gateway --example console
//   cd tests/console && npm install --no-package-lock && node run.mjs
//
// CONSOLE: the example's binary (default: target/debug/examples/console; CARGO_TARGET_DIR counts). CHROMIUM: the browser
// (default /usr/bin/chromium). PICTURES: where the pictures go (default: pictures/). Ends with 1 when a check fails.

import { spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const here = dirname(fileURLToPath(import.meta.url));
const target = process.env.CARGO_TARGET_DIR ?? join(here, '../../target');
const binary = process.env.CONSOLE ?? join(target, 'debug/examples/console');
const pictures = process.env.PICTURES ?? join(here, 'pictures');
const SIZES = [[1366, 650], [1024, 768]];
const THEMES = ['light', 'dark'];
const PASSWORD = 'correct horse';

let checks = 0;
const faults = [];
function check(holds, words) {
  checks += 1;
  if (!holds) { faults.push(words); console.error(`FAULT ${words}`); }
}

/** Starts the example on a free port; gives the process and its address. */
function serve() {
  const child = spawn(binary, ['0'], { stdio: ['ignore', 'pipe', 'inherit'] });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (code) => reject(new Error(`the console ended with ${code}`)));
    child.stdout.on('data', (bytes) => {
      const found = /http:\/\/[0-9.:]+/.exec(String(bytes));
      if (found) resolve({ child, address: found[0] });
    });
  });
}

/** A page of a fresh browser profile; what the browser complains about becomes a fault. */
async function fresh(browser, [width, height], theme, script = true) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: theme, javaScriptEnabled: script });
  const page = await context.newPage();
  page.expected = [];
  page.on('pageerror', (error) => check(false, `${page.url()}: ${error.message}`));
  page.on('console', (message) => {
    if (!['error', 'warning'].includes(message.type())) return;
    const text = `${message.text()} ${message.location().url}`;
    if (!page.expected.some((part) => text.includes(part))) check(false, `${page.url()}: ${text}`);
  });
  if (script) {
    await context.exposeFunction('violated', (words) => check(false, `policy violated: ${words}`));
    await context.addInitScript(() => document.addEventListener('securitypolicyviolation', (event) => {
      window.violated(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`);
    }));
  }
  return page;
}

async function signIn(page, address, account, shot = async () => {}) {
  await page.goto(`${address}/sign-in`);
  await shot('sign-in');
  await page.fill('#account', account);
  await page.fill('#password', PASSWORD);
  await Promise.all([page.waitForURL((url) => !url.pathname.endsWith('/sign-in')), page.keyboard.press('Enter')]);
}

/** Finds a person and opens the record with the keyboard alone. */
async function open(page, name, shot = async () => {}) {
  await page.keyboard.type(name);
  await Promise.all([page.waitForNavigation(), page.keyboard.press('Enter')]);
  await page.waitForSelector('.hits button');
  await shot('find');
  await page.keyboard.press('ArrowDown');
  await Promise.all([page.waitForURL(/\/(record|consent)\//), page.keyboard.press('Enter')]);
}

/** The parts of which no pixel may lie below the fold or beyond the right edge. */
async function aboveFold(page, parts, words) {
  for (const part of parts) {
    const box = await page.locator(part).first().boundingBox();
    const { width, height } = page.viewportSize();
    check(box && box.y + box.height <= height + 1 && box.x + box.width <= width + 1, `${words}: ${part} is not above the fold (${JSON.stringify(box)})`);
  }
}

async function noSideways(page, words) {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  check(wide <= 0, `${words}: ${wide} pixels wider than the window`);
}

async function pages(browser, address, size, theme) {
  const name = `${size[0]}-${theme}`;
  const shotOf = (page) => async (what) => {
    await page.screenshot({ path: join(pictures, `${what}-${name}.png`) });
    await noSideways(page, `${what} ${name}`);
  };
  let page = await fresh(browser, size, theme);
  let shot = shotOf(page);
  await signIn(page, address, 'haddad', shot);
  await open(page, 'okafor', shot);
  await page.waitForFunction(() => document.querySelector('#gap').textContent.includes('5 of 7'));
  await shot('record-partial');
  const all = ['#gap', '#flags', '#allergies', '#medications', '#problems', '#visits', '#imaging', '#documents', '#foot'];
  await aboveFold(page, size[0] > 1100 ? all : ['#gap', '#flags', '#allergies', '#medications', '#problems'], `partial record ${name}`);
  const record = page.url();
  await page.keyboard.press('i');
  check(await page.locator('details.src-more[open]').count() > 0, `${name}: I opens the originals`);
  await page.keyboard.press('d');
  await page.waitForURL(/\/document\//);
  await page.goto(`${record}/document/letter`);
  await shot('document');
  check(await page.locator('pre.doc').textContent().then((text) => text.includes('<script>')), `${name}: text stays text`);
  await page.keyboard.press('b');
  await page.waitForURL(record);
  await page.goto(`${record}/study/xray`);
  await page.waitForFunction(() => [...document.images].every((image) => image.complete && image.naturalWidth > 0));
  await shot('study');
  await page.keyboard.press('n');
  await page.waitForURL(/n=2/);
  page.expected.push('/picture?n=6');
  await page.goto(`${record}/study/xray?n=6`);
  await shot('study-missing');
  await page.goto(record);
  await page.keyboard.press('e');
  await page.waitForURL(/\/emergency$/);
  await shot('emergency');
  await page.fill('#words', 'unconscious');
  await Promise.all([page.waitForURL(record), page.keyboard.press('Enter')]);
  check(await page.locator('.pill.d', { hasText: 'Emergency access, ends 14:32' }).count() === 1, `${name}: the end of the access is shown`);
  await shot('record-emergency');
  await page.goto(`${address}/find`);
  await open(page, 'mensah');
  await page.waitForFunction(() => document.querySelector('#gap').textContent.includes('2 of 2'));
  await shot('record-complete');
  await page.context().close();

  for (const [account, what] of [['silva', 'access-log'], ['okoye', 'node'], ['ruiz', 'consent']]) {
    page = await fresh(browser, size, theme);
    shot = shotOf(page);
    await signIn(page, address, account);
    if (account === 'ruiz') {
      await open(page, 'okafor');
      await shot(what);
      await page.check('input[value=hiv]');
      await page.click('button[value=preview]');
      await page.waitForSelector('#preview');
      await shot('consent-preview');
      check(await page.isChecked('input[value=hiv]'), `${name}: the preview keeps the choices`);
    } else {
      await shot(what);
    }
    await page.context().close();
  }
}

/** Rows arrive one by one without a reload; focus and open folds stay; the idle lock waits. */
async function stream(browser, address) {
  const page = await fresh(browser, SIZES[0], 'light');
  await signIn(page, address, 'haddad');
  await open(page, 'lindqvist');
  await page.evaluate(() => { window.stays = true; });
  await page.waitForFunction(() => document.querySelector('#allergies-h').textContent.includes('not yet known'));
  await page.waitForFunction(() => document.querySelector('#problems').textContent.includes('Asthma'));
  check(await page.locator('#gap').textContent().then((text) => text.includes('1 of 2')), 'the first answer is counted alone');
  await page.waitForFunction(() => document.querySelector('#allergies').textContent.toLowerCase().includes('penicillin'));
  check(await page.locator('#said').textContent().then((text) => text.trim() !== ''), 'what arrived is announced');
  check(await page.evaluate(() => window.stays), 'rows arrive without a reload');
  check(await page.locator('#lost').isHidden(), 'a stream that ended is not a lost connection');
  await page.context().close();
}

async function idle(browser, address) {
  const page = await fresh(browser, SIZES[0], 'light');
  await page.clock.install();
  await signIn(page, address, 'haddad');
  const limit = await page.locator('idle-lock').evaluate((lock) => Number(lock.dataset.seconds));
  check(limit >= 300, `the idle limit is ${limit} s`);
  await page.clock.runFor((limit - 70) * 1000);
  check(await page.locator('idle-lock').isHidden(), 'no warning before the last minute');
  await page.clock.runFor(20_000);
  check(await page.locator('idle-lock').isVisible(), 'a warning in the last minute');
  const told = page.waitForRequest((request) => request.method() === 'HEAD');
  await page.keyboard.press('Shift');
  await told;
  check(await page.locator('idle-lock').isHidden(), 'a key takes the warning away and tells the server');
  await page.clock.runFor((limit - 70) * 1000);
  check(page.url().endsWith('/find'), 'the lock does not fire early');
  await page.clock.runFor(90_000);
  await page.waitForURL(/\/sign-in/);
  await page.context().close();
}

/** Without script the rows stream into the same page. */
async function withoutScript(browser, address) {
  const page = await fresh(browser, SIZES[0], 'light', false);
  await signIn(page, address, 'haddad');
  await page.fill('#text', 'okafor');
  await page.keyboard.press('Enter');
  await page.click('.hits button');
  await page.waitForSelector('text=Treat as allergic.');
  await page.screenshot({ path: join(pictures, 'record-without-script.png') });
  await page.context().close();
}

mkdirSync(pictures, { recursive: true });
const { child, address } = await serve();
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox'] });
const part = async (words, work) => {
  try { await work(); } catch (error) { check(false, `${words}: ${error.message}`); }
};
try {
  for (const size of SIZES) for (const theme of THEMES) await part(`pages ${size} ${theme}`, () => pages(browser, address, size, theme));
  await part('stream', () => stream(browser, address));
  await part('idle', () => idle(browser, address));
  await part('without script', () => withoutScript(browser, address));
} finally {
  await browser.close();
  child.removeAllListeners('exit');
  child.kill();
}
console.log(`${checks} checks, ${faults.length} faults; pictures in ${pictures}`);
process.exitCode = faults.length === 0 ? 0 : 1;
