// The page at `/` in a real browser, against running gateways.
//
//   npm ci && ROOMGATE_URLS=http://127.0.0.1:8080,http://127.0.0.1:8081 npm test
//
// With two URLs the two windows of a test are on two gateways. CHROMIUM names another browser binary.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { browser, chatIs, context, eachTest, fill, gateways, member, newWindow, room, say, seesMember, tap, textIs, until } from './support.mjs';

eachTest();

/** Two windows of one browser in the room of the test. */
async function two() {
  const ada = await member(context, { room, name: 'Ada', index: 0 });
  const bea = await member(context, { room, name: 'Bea', index: 1 });
  return [ada, bea];
}

test('the page and its parts are served with a strict policy', async () => {
  const page = await newWindow(context);
  const parts = [];
  page.on('response', (response) => parts.push(response));
  const answer = await page.goto(`${gateways[0]}/`);
  await until(page, 'the form', () => !document.querySelector('#start').hidden && document.activeElement.id === 'start-name');

  const policy = answer.headers()['content-security-policy'] ?? '';
  assert.match(policy, /default-src 'self'/);
  assert.doesNotMatch(policy, /unsafe-inline|unsafe-eval/);
  for (const part of parts) {
    assert.equal(part.status(), 200, part.url());
    assert.equal(part.headers()['x-content-type-options'], 'nosniff', part.url());
  }
});

test('two windows see each other, each with its node', async () => {
  const [ada, bea] = await two();
  await seesMember(ada, 'Bea', bea.node);
  await seesMember(bea, 'Ada', ada.node);
  await textIs(ada, '#room-people', '2 members, 2 connections');
  if (gateways.length > 1) assert.notEqual(ada.node, bea.node);

  await bea.click('#leave');
  await textIs(ada, '#room-people', '1 member, 1 connection');
});

test('a window that is lost is shown as away, and comes back', async () => {
  const line = {};
  const ada = await member(context, { room, name: 'Ada' });
  const bea = await member(context, { room, name: 'Bea', index: 1, prepare: tap(line) });
  await seesMember(ada, 'Bea', bea.node);
  await line.cut(1012, '60000');
  await ada.locator('#members-list li.away', { hasText: 'Bea' }).waitFor();
  await bea.click('#phase-retry');
  await seesMember(ada, 'Bea', bea.node);
});

test('what users write is text and never markup', async () => {
  const markup = '<img src=x onerror=alert(1)><b>bold</b>';
  const ada = await member(context, { room, name: 'Ada' });
  const eve = await member(context, { room, name: markup, index: 1 });
  await seesMember(ada, markup, eve.node);
  await say(eve, markup);
  await chatIs(ada, [markup]);
  assert.equal(await ada.locator('#room b, #room img').count(), 0);
});

test('chat goes both ways, in the same order for both', async () => {
  const [ada, bea] = await two();
  const said = [];
  for (const [page, text] of [[ada, 'one'], [bea, 'two'], [ada, 'three\nlines\nhere'], [bea, 'four']]) {
    if (text.includes('\n')) {
      await page.fill('#chat-input', text);
      await page.click('#chat-send');
    } else {
      await say(page, text);
    }
    said.push(text);
    await chatIs(ada, said);
    await chatIs(bea, said);
  }
  assert.equal(await ada.locator('#chat-list li.own').count(), 2);
  assert.equal(await bea.locator('#chat-list li.own').count(), 2);
});

test('a counter clicked in both windows adds up exactly', async () => {
  const [ada, bea] = await two();
  // At the same time in both windows; within one, in turn, for it has one mouse.
  const clicks = async (page, buttons) => {
    for (const button of buttons) await page.click(`#counter-${button}`);
  };
  await Promise.all([clicks(ada, Array(7).fill('up')), clicks(bea, ['up', 'up', 'down', 'up', 'up', 'up', 'down', 'up'])]);
  await textIs(ada, '#counter', 11);
  await textIs(bea, '#counter', 11);
  await textIs(ada, '#state-version', 15);
});

test('a colour set in one window is seen in the other, and so is the own colour', async () => {
  const [ada, bea] = await two();
  await ada.fill('#colour-own', '#ff8800');
  await textIs(bea, '#colour', '#ff8800');
  await bea.getByRole('button', { name: 'Colour #2b59c3' }).click();
  await textIs(ada, '#colour', '#2b59c3');

  await bea.fill('#own-colour', '#123456');
  await until(ada, 'the colour of Bea', () => [...document.querySelectorAll('#members-list li')].some(
    (row) => row.textContent.includes('Bea') && row.querySelector('.mark').style.backgroundColor === 'rgb(18, 52, 86)',
  ));
});

test('after a reload the same user is there with history and state', async () => {
  const [ada, bea] = await two();
  await say(ada, 'before');
  await chatIs(bea, ['before']);
  await bea.click('#counter-up');
  await textIs(ada, '#counter', 1);

  await bea.reload();
  await chatIs(bea, ['before']);
  await textIs(bea, '#counter', 1);
  await until(ada, 'two members, both here', () => document.querySelectorAll('#members-list li:not(.away)').length === 2);
  assert.equal(await ada.locator('#members-list li').count(), 2, 'no third member came with the reload');
  await say(bea, 'after');
  await chatIs(ada, ['before', 'after']);
});

test('older messages are loaded until there are no more', async () => {
  const total = 130;
  const ada = await member(context, { room, name: 'Ada' });
  await fill(ada, room, total);
  // The reload brings the newest page only.
  await ada.reload();
  const shown = () => ada.locator('#chat-list li').count();
  await ada.locator('#chat-older').waitFor();
  for (let had = await shown(); had < total; had = await shown()) {
    await ada.click('#chat-older');
    await until(ada, `more than ${had} messages`, (before) => document.querySelectorAll('#chat-list li').length > before, had);
  }
  await chatIs(ada, Array.from({ length: total }, (_, at) => `message ${at + 1}`));
  if (await ada.locator('#chat-older').isVisible()) await ada.click('#chat-older');
  await ada.locator('#chat-older').waitFor({ state: 'hidden' });
});

test('what was missed while disconnected is there after coming back', async () => {
  const line = {};
  const ada = await member(context, { room, name: 'Ada' });
  const bea = await member(context, { room, name: 'Bea', index: 1, prepare: tap(line) });
  await say(ada, 'first');
  await chatIs(bea, ['first']);

  await line.cut(1012, '60000');
  await until(bea, 'the countdown', () => /^Reconnecting in \d+ s$/.test(document.querySelector('#phase-countdown').textContent));
  await say(ada, 'missed');
  await chatIs(ada, ['first', 'missed']);
  // Written while there is no connection: it waits, and goes out once.
  await bea.fill('#chat-input', 'waited');
  await bea.press('#chat-input', 'Enter');
  await bea.locator('#chat-outgoing li').waitFor();

  await bea.click('#phase-retry');
  await chatIs(bea, ['first', 'missed', 'waited']);
  await chatIs(ada, ['first', 'missed', 'waited']);
  assert.match(await bea.textContent('#link-join'), /^recovered/);
});

test('a message whose answer was lost is sent again and stands there once', async () => {
  const line = {};
  const ada = await member(context, { room, name: 'Ada' });
  const bea = await member(context, { room, name: 'Bea', index: 1, prepare: tap(line) });
  line.deaf = true;
  await say(bea, 'once');
  // It has happened; the one who wrote it has not heard.
  await chatIs(ada, ['once']);
  await bea.locator('#chat-outgoing li').waitFor();
  line.deaf = false;
  await line.cut(1012, '0');
  await chatIs(bea, ['once']);
  await say(bea, 'after');
  await chatIs(bea, ['once', 'after']);
  await chatIs(ada, ['once', 'after']);
});

test('what cannot be done now is done when it can be', async () => {
  const line = {};
  const ada = await member(context, { room, name: 'Ada', prepare: tap(line) });
  line.refuses = { code: 'unavailable', message: 'Not now.', retryable: true, retryAfterMs: 200 };
  await say(ada, 'first');
  await ada.locator('#chat-outgoing li').waitFor();
  await say(ada, 'second');
  await until(ada, 'both to wait', () => document.querySelectorAll('#chat-outgoing li').length === 2);
  line.refuses = null;
  await chatIs(ada, ['first', 'second']);
});

test('a room that has another epoch and lost nothing goes on', async () => {
  const line = {};
  const ada = await member(context, { room, name: 'Ada', prepare: tap(line) });
  await say(ada, 'before');
  await chatIs(ada, ['before']);
  line.toPage({ type: 'status', room, data: { redis: 'ok', epoch: 'renamed' } });
  await textIs(ada, '#link-epoch', 'renamed');
  await chatIs(ada, ['before']);
});

test('a close code that says stop is obeyed and explained', async () => {
  const line = {};
  const ada = await member(context, { room, name: 'Ada', prepare: tap(line) });
  await line.cut(4003);
  await textIs(ada, '#start-out-text', 'Disconnected: the operator blocked this user.');
  assert.equal(line.connections, 1);
});

test('unknown events and codes break nothing; trouble is shown', async () => {
  const line = {};
  const ada = await member(context, { room, name: 'Ada', prepare: tap(line) });
  line.toPage({ type: 'never.heard', room, data: { strange: [null] } });
  line.toPage({ type: 'error', room, data: { code: 'brand_new', message: 'Something new.' } });
  await ada.locator('.notice.error', { hasText: 'Something new.' }).getByText('brand_new').waitFor();
  line.toPage({ type: 'status', data: { redis: 'down' } });
  await ada.locator('#redis-banner').waitFor({ state: 'visible' });
  line.toPage({ type: 'status', data: { redis: 'ok' } });
  await ada.locator('#redis-banner').waitFor({ state: 'hidden' });
  await say(ada, 'still here');
  await chatIs(ada, ['still here']);
});

test('a hole in the order is noticed and repaired', async () => {
  const line = {};
  const ada = await member(context, { room, name: 'Ada', prepare: tap(line) });
  await textIs(ada, '#link-join', 'fresh (new)');
  const seq = Number(await ada.textContent('#link-seq'));
  line.toPage({ type: 'message.sent', room, seq: seq + 5, ts: 1, by: 'x', data: { id: 'far', seq: seq + 5, ts: 1, by: 'x', body: 'too early' } });
  await until(ada, 'a second join', () => /^recovered/.test(document.querySelector('#link-join').textContent));
  await say(ada, 'in order');
  await chatIs(ada, ['in order']);
});

test('a resync replaces everything', async () => {
  const line = {};
  const ada = await member(context, { room, name: 'Ada', prepare: tap(line) });
  await say(ada, 'old');
  await chatIs(ada, ['old']);
  const message = { id: 'm', seq: 3, ts: 1, by: 'z', kind: 'text', body: 'new', version: 1 };
  const zoe = { id: 'z', name: 'Zoe', presence: { node: 'gw-9' }, status: 'here', joinedAt: 1, lastSeen: 1, connections: 1 };
  line.toPage({ type: 'resync', room, data: { epoch: 'other', seq: 3, version: 1, state: { counter: 41 }, users: [zoe], members: 1, messages: [message] } });
  await chatIs(ada, ['new']);
  await textIs(ada, '#counter', 41);
  await textIs(ada, '#link-epoch', 'other');
  await seesMember(ada, 'Zoe', 'gw-9');
});

test('the range of a close code decides, also for codes not known', async () => {
  const page = await newWindow(context);
  await page.goto(`${gateways[0]}/`);
  const decisions = await page.evaluate(async () => {
    const { afterClose } = await import('/assets/closing.js');
    // The highest jitter there is, at the third loss in a row.
    const say = (code, reason = '') => {
      const { stop, delayMs } = afterClose(code, reason, 2, () => 1);
      return stop ? 'stop' : delayMs;
    };
    const first = afterClose(4299, '', 0, () => 1).delayMs;
    const late = afterClose(1006, '', 50, () => 1).delayMs;
    const codes = [1000, 1001, 1005, 1006, 1011, 1002, 1003, 1007, 1008, 1009, 4000, 4099, 4100, 4199, 4200, 4999];
    return { first, late, drain: say(1012, '750'), oddDrain: say(1012, 'soon'), slow: say(1013), byCode: codes.map((code) => say(code)) };
  });
  assert.deepEqual(decisions, {
    first: 0,
    late: 30_000,
    drain: 750,
    oddDrain: 1_000,
    slow: 21_000,
    byCode: ['stop', 1_000, 1_000, 1_000, 1_000, 'stop', 'stop', 'stop', 'stop', 'stop', 'stop', 'stop', 'stop', 'stop', 1_000, 1_000],
  });
});

test('a wrong room or name is explained in the form', async () => {
  const page = await newWindow(context);
  await page.goto(`${gateways[0]}/`);
  await page.fill('#start-name', '');
  await page.fill('#start-room', 'no spaces');
  await page.press('#start-room', 'Enter');
  await textIs(page, '#start-name-error', 'Enter a name.');
  await textIs(page, '#start-room-error', 'A space is not allowed in a room.');
  assert.equal(await page.getAttribute('#start-room', 'aria-invalid'), 'true');
});

test('everything fits on a phone', async () => {
  const phone = await browser.newContext({ viewport: { width: 360, height: 640 }, isMobile: true, hasTouch: true });
  try {
    const page = await newWindow(phone);
    const fits = () => until(page, 'no horizontal scroll', () => document.documentElement.scrollWidth <= innerWidth);
    await page.goto(`${gateways[0]}/`);
    await fits();
    await page.fill('#start-name', 'A name that is rather long for such a small screen');
    await page.fill('#start-room', room);
    await page.getByRole('button', { name: 'Join' }).tap();
    await until(page, 'the join', () => document.querySelector('#members-list li .you') !== null);
    const word = 'long'.repeat(60);
    await say(page, word);
    await chatIs(page, [word]);
    await page.locator('#timeline summary').tap();
    await until(page, 'the events', () => document.querySelector('#timeline-list li') !== null);
    await fits();
    assert.deepEqual(page.complaints, []);
  } finally {
    await phone.close();
  }
});

test('the keyboard is enough', async () => {
  const page = await newWindow(context);
  const { keyboard } = page;
  await page.goto(`${gateways[0]}/`);
  await until(page, 'focus in the form', () => document.activeElement.id === 'start-name');
  await keyboard.type('Kay');
  await keyboard.press('Tab');
  await keyboard.press('Control+A');
  await keyboard.type(room);
  await keyboard.press('Enter');
  await until(page, 'focus in the chat', () => document.activeElement.id === 'chat-input' && document.querySelector('.you'));
  await keyboard.type('typed');
  await keyboard.press('Enter');
  await chatIs(page, ['typed']);

  const focused = () => page.evaluate(() => document.activeElement.id);
  for (let steps = 0; (await focused()) !== 'counter-up'; steps += 1) {
    assert.ok(steps < 20, 'the counter is reached by Tab');
    await keyboard.press('Tab');
    const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.notEqual(outline, 'none', `the focus can be seen on ${await focused()}`);
  }
  await keyboard.press('Enter');
  await textIs(page, '#counter', 1);
  await keyboard.press('Escape');
  await until(page, 'the form again', () => !document.querySelector('#start').hidden && document.activeElement.id.startsWith('start-'));
});
