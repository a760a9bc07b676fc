// The browser, windows in a room, and waits with deadlines. Nothing here sleeps.

import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach } from 'node:test';
import { chromium } from 'playwright-core';

const DEADLINE_MS = 15_000;
const FLAGS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
];

/** Base URLs of the running gateways: `ROOMGATE_URLS=http://127.0.0.1:8080,http://127.0.0.1:8081`. */
export const gateways = (process.env.ROOMGATE_URLS ?? '').split(',').map((url) => url.trim().replace(/\/$/, '')).filter(Boolean);
assert.ok(gateways.length > 0, 'ROOMGATE_URLS must list the base URLs of one or more running gateways');

/** Shared by the tests of a file; set by `eachTest`. */
export let browser;
/** The test's own: its windows share storage with each other and with no other test's. */
export let context;
/** The test's own, also when a run is repeated against the same gateways. */
export let room;

/** Gives each test of the file a context and a room, and fails the ones whose windows the browser complained in. */
export function eachTest() {
  before(async () => {
    browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: FLAGS });
  });
  after(() => browser?.close());
  beforeEach(async () => {
    context = await browser.newContext();
    room = `page-test-${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 8)}`;
  });
  afterEach(async () => {
    const complaints = context.pages().flatMap((page) => page.complaints);
    await context.close();
    assert.deepEqual(complaints, [], 'no console errors and no CSP violations');
  });
}

/** A window that keeps every complaint of the browser in `window.complaints`. */
export async function newWindow(context) {
  const page = await context.newPage();
  page.setDefaultTimeout(DEADLINE_MS);
  page.complaints = [];
  page.on('console', (message) => message.type() === 'error' && page.complaints.push(message.text()));
  page.on('pageerror', (error) => page.complaints.push(String(error)));
  await page.exposeFunction('reportViolation', (text) => page.complaints.push(text));
  await page.addInitScript(() => {
    addEventListener('securitypolicyviolation', (event) => window.reportViolation(`CSP: ${event.violatedDirective} ${event.blockedURI}`));
  });
  return page;
}

/** Waits for a condition in the page; a missed deadline says what the page showed. */
export async function until(page, what, condition, argument) {
  try {
    await page.waitForFunction(condition, argument, { timeout: DEADLINE_MS });
  } catch (error) {
    const shown = await page.evaluate(() => document.body.innerText).catch(() => '(page gone)');
    throw new Error(`waited in vain for: ${what}\n${error.message}\nThe page showed:\n${shown}`);
  }
}

export const textIs = (page, selector, text) =>
  until(page, `${selector} to read ${text}`, ([at, wanted]) => document.querySelector(at)?.textContent === wanted, [selector, String(text)]);

/** A window that has joined `room`. Gateways take turns by `index`, so that two windows are on two of them. */
export async function member(context, { room, name, index = 0, prepare = async () => {} }) {
  const page = await newWindow(context);
  await prepare(page);
  const query = new URLSearchParams({ room, name }).toString();
  await page.goto(`${gateways[index % gateways.length]}/?${query}`);
  await until(page, `${name} to have joined`, () => document.querySelector('#members-list li .you') !== null);
  page.node = await page.textContent('#link-node');
  return page;
}

export async function say(page, text) {
  await page.fill('#chat-input', text);
  await page.press('#chat-input', 'Enter');
}

/** Waits until the chat shows exactly these messages, in this order. */
export const chatIs = (page, messages) =>
  until(page, `the chat ${JSON.stringify(messages)}`, (wanted) => {
    const shown = [...document.querySelectorAll('#chat-list .text')].map((node) => node.textContent);
    return JSON.stringify(shown) === JSON.stringify(wanted) && !document.querySelector('#chat-outgoing li');
  }, messages);

/** Sends `count` messages over a connection of its own, as fast as the gateway lets it. */
export const fill = (page, room, count) =>
  page.evaluate(async ([room, count]) => {
    const { Client, randomId } = await import('/assets/client.js');
    const url = `${location.origin.replace('http', 'ws')}/ws?user=${randomId('u-')}&name=Filler`;
    await new Promise((resolve, reject) => {
      const run = async () => {
        await client.command('join', { room });
        client.ready();
        for (let at = 1; at <= count; at += 1) {
          const command = { room, data: { body: `message ${at}` }, durable: true, id: randomId('k') };
          // Refused for its rate: the same command again when the gateway says that it may.
          for (let sent = false; !sent; ) {
            try {
              await client.command('message.send', command);
              sent = true;
            } catch (error) {
              if (!error.retryAfterMs) throw error;
              await new Promise((again) => setTimeout(again, error.retryAfterMs));
            }
          }
        }
      };
      const nothing = () => {};
      const client = new Client(url, { onWelcome: () => run().then(resolve, reject), onFrame: nothing, onPhase: nothing, onRoundTrip: nothing });
      client.open();
    });
  }, [room, count]);

/** Waits until a member of this name is shown as served by this node. */
export const seesMember = (page, name, node) =>
  until(page, `${name} on ${node}`, ([who, where]) => [...document.querySelectorAll('#members-list li')].some(
    (row) => row.querySelector('.name').firstChild.textContent === who && row.querySelector('.muted').textContent.startsWith(`on ${where}`),
  ), [name, node]);

/**
 * Waits until the mark of this user stands at this place of the map, as the eye sees it: `{ x, y }` from 0 to 1.
 * One's own mark is called `You`. With `ghost` it must be one at that moment.
 */
export const standsAt = (page, name, { x, y }, { ghost = false } = {}) =>
  until(page, `${name} ${ghost ? 'as a ghost ' : ''}at ${x}, ${y}`, ([who, x, y, ghost]) => {
    const avatar = [...document.querySelectorAll('.avatar[data-user]')].find((node) => node.querySelector('.name').textContent === who);
    if (!avatar || (ghost && !avatar.classList.contains('away'))) return false;
    const mark = avatar.querySelector('.mark').getBoundingClientRect();
    const plane = document.querySelector('#map-plane').getBoundingClientRect();
    const off = [
      mark.left + mark.width / 2 - plane.left - x * plane.width,
      mark.top + mark.height / 2 - plane.top - y * plane.height,
    ];
    return off.every((px) => Math.abs(px) < 1.5);
  }, [name, x, y, ghost]);

/** Where on the screen a place of the map is. */
export async function pointOf(page, { x, y }) {
  const plane = await page.locator('#map-plane').boundingBox();
  return [plane.x + x * plane.width, plane.y + y * plane.height];
}

/** Presses on the map there. */
export async function press(page, place) {
  await page.mouse.click(...(await pointOf(page, place)));
  await standsAt(page, 'You', place);
}

export const isGhost = (page, name) =>
  until(page, `${name} to be a ghost`, (who) => [...document.querySelectorAll('.avatar[data-user].away .name')].some((node) => node.textContent === who), name);

export const isNotOnMap = (page, name) =>
  until(page, `${name} to be gone from the map`, (who) => ![...document.querySelectorAll('.avatar[data-user] .name')].some((node) => node.textContent === who), name);

/**
 * Puts the test between the page and its gateway: `line.toPage(frame)` speaks as the gateway,
 * `line.cut(code, reason)` closes the present connection as the gateway would, while `line.deaf` is set
 * nothing of what the gateway says arrives, and while `line.refuses` is set messages get that error and go no further.
 * `line.moves` is every move that the page has sent.
 */
export function tap(line) {
  return (page) => page.routeWebSocket(/\/ws\?/, (socket) => {
    const server = socket.connectToServer();
    line.connections = (line.connections ?? 0) + 1;
    line.moves ??= [];
    server.onMessage((text) => {
      if (!line.deaf) socket.send(text);
    });
    socket.onMessage((text) => {
      const command = JSON.parse(text);
      const { id, type } = command;
      if (type === 'move') line.moves.push(command);
      if (line.refuses && type === 'message.send') line.toPage({ type: 'error', id, room: undefined, data: line.refuses });
      else server.send(text);
    });
    line.toPage = (frame) => socket.send(JSON.stringify(frame));
    line.cut = async (code, reason = '') => {
      await socket.close({ code, reason });
      // Not 1000, which would leave the rooms.
      await server.close({ code: 4999 });
    };
  });
}
