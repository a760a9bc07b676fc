// The map in a real browser, against running gateways: see page.test.mjs.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { browser, context, eachTest, gateways, isGhost, isNotOnMap, member, newWindow, pointOf, press, room, seesMember, standsAt, tap, textIs, until } from './support.mjs';

eachTest();

/** Ada and Bea on two gateways, on screens of different sizes. */
async function two(line = {}) {
  const ada = await member(context, { room, name: 'Ada', index: 0, prepare: tap(line) });
  const bea = await member(context, { room, name: 'Bea', index: 1 });
  await bea.setViewportSize({ width: 760, height: 1000 });
  await seesMember(ada, 'Bea', bea.node);
  return [ada, bea];
}

/** The place that a mark is shown at. */
const placeOf = (page, name) =>
  page.evaluate((who) => {
    const avatar = [...document.querySelectorAll('.avatar[data-user]')].find((node) => node.querySelector('.name').textContent === who);
    const mark = avatar.querySelector('.mark').getBoundingClientRect();
    const plane = document.querySelector('#map-plane').getBoundingClientRect();
    return { x: (mark.left + mark.width / 2 - plane.left) / plane.width, y: (mark.top + mark.height / 2 - plane.top) / plane.height };
  }, name);

/** Waits until the store has a place for the user of this name. */
const placeIsStored = (page, name) =>
  page.evaluate(async ([room, name]) => {
    const { Client, randomId } = await import('/assets/client.js');
    const url = `${location.origin.replace('http', 'ws')}/ws?user=${randomId('u-')}&name=Looker`;
    const nothing = () => {};
    await new Promise((resolve, reject) => {
      const look = async () => {
        await client.command('join', { room });
        for (const until = Date.now() + 10_000; Date.now() < until; ) {
          const { users } = await client.command('users.list', { room });
          if (users.some((user) => user.name === name && user.position)) return;
        }
        throw new Error('no place was stored');
      };
      const client = new Client(url, {
        onWelcome: () => look().finally(() => client.close()).then(resolve, reject),
        onFrame: nothing,
        onPhase: nothing,
        onRoundTrip: nothing,
      });
      client.open();
    });
  }, [room, name]);

test('a drag is seen in the other window, at the same place of a map of another size', async () => {
  const line = {};
  const [ada, bea] = await two(line);
  const start = await placeOf(ada, 'You');
  await standsAt(bea, 'Ada', start);
  assert.deepEqual(line.moves, [], 'nobody has moved yet');

  const from = await pointOf(ada, { x: 0.1, y: 0.2 });
  const to = await pointOf(ada, { x: 0.9, y: 0.6 });
  const begun = Date.now();
  await ada.mouse.move(...from);
  await ada.mouse.down();
  await ada.mouse.move(...to, { steps: 60 });
  const took = Date.now() - begun;
  await standsAt(ada, 'You', { x: 0.9, y: 0.6 });
  await standsAt(bea, 'Ada', { x: 0.9, y: 0.6 });
  // Off the map, still held: its edge.
  await ada.mouse.move(5, 3000);
  await ada.mouse.up();
  await standsAt(bea, 'Ada', { x: 0, y: 1 });
  // No longer held.
  await ada.mouse.move(...(await pointOf(ada, { x: 0.5, y: 0.5 })));
  await standsAt(ada, 'You', { x: 0, y: 1 });

  assert.ok(line.moves.length <= took / 50 + 4, `${line.moves.length} moves in ${took} ms`);
  for (const move of line.moves) {
    assert.deepEqual(Object.keys(move).sort(), ['data', 'room', 'type'], 'sent without an id');
    assert.deepEqual(Object.keys(move.data), ['x', 'y']);
  }
  const types = await bea.locator('#timeline-list .type').allTextContents();
  assert.ok(!types.includes('moves'), 'moves are no events');
});

test('a tap goes there', async () => {
  const phone = await browser.newContext({ viewport: { width: 375, height: 667 }, isMobile: true, hasTouch: true });
  try {
    const page = await member(phone, { room, name: 'Ada' });
    const bea = await member(context, { room, name: 'Bea', index: 1 });
    await page.touchscreen.tap(...(await pointOf(page, { x: 0.25, y: 0.75 })));
    await standsAt(page, 'You', { x: 0.25, y: 0.75 });
    await standsAt(bea, 'Ada', { x: 0.25, y: 0.75 });
    await until(page, 'no horizontal scroll', () => document.documentElement.scrollWidth <= innerWidth);
    assert.deepEqual(page.complaints, []);
  } finally {
    await phone.close();
  }
});

test('the arrow keys go, also two at a time and farther with Shift', async () => {
  const [ada, bea] = await two();
  const { keyboard } = ada;
  await press(ada, { x: 0.5, y: 0.5 });
  await ada.focus('#chat-input');
  const focused = () => ada.evaluate(() => document.activeElement.id);
  for (let steps = 0; (await focused()) !== 'map'; steps += 1) {
    assert.ok(steps < 5, 'the map is reached by Tab');
    await keyboard.press('Shift+Tab');
  }
  assert.notEqual(await ada.evaluate(() => getComputedStyle(document.activeElement).outlineStyle), 'none');
  await ada.getByRole('application', { name: 'Map', description: /arrow keys, with Shift faster/ }).waitFor();

  await keyboard.press('ArrowRight');
  const right = await placeOf(ada, 'You');
  assert.ok(right.x > 0.5 && Math.abs(right.y - 0.5) < 0.005, JSON.stringify(right));
  await keyboard.press('Shift+ArrowLeft');
  const left = await placeOf(ada, 'You');
  assert.ok(0.5 - left.x > right.x - 0.5, 'a step with Shift is a larger one');

  await keyboard.down('ArrowUp');
  await keyboard.down('ArrowLeft');
  await until(ada, 'the corner', () => {
    const [x, y] = document.querySelector('.avatar.own').style.transform.match(/[\d.]+(?=px)/g).map(Number);
    return x < 80 && y < 80;
  });
  await keyboard.up('ArrowUp');
  await keyboard.up('ArrowLeft');
  await standsAt(bea, 'Ada', await placeOf(ada, 'You'));
  // The keys are the map's only while it has the focus.
  const before = await placeOf(ada, 'You');
  await ada.focus('#chat-input');
  await keyboard.press('ArrowRight');
  assert.deepEqual(await placeOf(ada, 'You'), before);
});

test('a newcomer sees where the others are, and so does who comes back', async () => {
  const ada = await member(context, { room, name: 'Ada' });
  await press(ada, { x: 0.15, y: 0.85 });
  await placeIsStored(ada, 'Ada');
  const bea = await member(context, { room, name: 'Bea', index: 1 });
  await standsAt(bea, 'Ada', { x: 0.15, y: 0.85 });
  await ada.reload();
  await standsAt(ada, 'You', { x: 0.15, y: 0.85 });
});

test('who loses the connection is a ghost at its place, and moves on after coming back', async () => {
  const line = {};
  const [ada, bea] = await two(line);
  await press(ada, { x: 0.3, y: 0.3 });
  await standsAt(bea, 'Ada', { x: 0.3, y: 0.3 });

  await line.cut(1012, '60000');
  await isGhost(bea, 'Ada');
  await standsAt(bea, 'Ada', { x: 0.3, y: 0.3 });
  await ada.locator('#map-stale').waitFor({ state: 'visible' });
  await textIs(ada, '#room-people', '2 members when last connected');

  const told = line.moves.length;
  await press(ada, { x: 0.6, y: 0.4 });
  await press(ada, { x: 0.7, y: 0.8 });
  await press(bea, { x: 0.2, y: 0.9 });
  assert.equal(line.moves.length, told, 'nothing is sent without a connection');
  await ada.click('#phase-retry');
  await standsAt(bea, 'Ada', { x: 0.7, y: 0.8 });
  await standsAt(ada, 'Bea', { x: 0.2, y: 0.9 });
  await until(bea, 'Ada to be no ghost', () => !document.querySelector('.avatar.away'));
  assert.deepEqual(line.moves.slice(told).map(({ data }) => data), [{ x: 0.7, y: 0.8 }], 'the last place only, once');
});

test('places that are none are passed over, and those beyond the edge are at it', async () => {
  const line = {};
  const [ada] = await two(line);
  const start = await placeOf(ada, 'Bea');
  const bea = await ada.getAttribute('.avatar:not(.own)', 'data-user');
  const moves = (data) => line.toPage({ type: 'moves', room, data });
  for (const position of [null, 7, 'x', {}, [0.1, 0.1], { x: 0.1 }, { x: '0.1', y: 0.1 }, { x: 0.1, y: null }, { x: { y: 1 }, y: [] }]) moves({ [bea]: position });
  moves(null);
  moves({ nobody: { x: 0.5, y: 0.5 } });
  line.toPage({ type: 'moves', room });
  await textIs(ada, '#phase-text', `Connected to ${ada.node}`);
  await standsAt(ada, 'Bea', start);
  moves({ [bea]: { x: 1e9, y: -4, z: 3 } });
  await standsAt(ada, 'Bea', { x: 1, y: 0 });
  assert.equal(await ada.locator('.avatar').count(), 2);
});

test('a room that counts shows who moves, and one that tells again shows everybody', async () => {
  const line = {};
  const [ada] = await two(line);
  line.toPage({ type: 'occupancy', room, data: { members: 1204 } });
  await textIs(ada, '#room-people', '1204 members');
  await isNotOnMap(ada, 'Bea');
  line.toPage({ type: 'moves', room, data: { 'u-77': { x: 0.4, y: 0.6 } } });
  await standsAt(ada, 'u-77', { x: 0.4, y: 0.6 });
  await press(ada, { x: 0.9, y: 0.9 });

  const seq = Number(await ada.textContent('#link-seq')) + 1;
  const user = (id, more) => ({ id, name: id, presence: {}, status: 'here', joinedAt: 1, lastSeen: 1, connections: 1, ...more });
  const joined = [user(await ada.getAttribute('.avatar.own', 'data-user')), user('Cid', { position: { x: 0.1, y: 0.1 } }), user('Dan', { status: 'away', connections: 0 })];
  line.toPage({ type: 'presence', room, seq, ts: 1, data: { all: true, joined } });
  await textIs(ada, '#room-people', '3 members, 2 connections');
  await standsAt(ada, 'Cid', { x: 0.1, y: 0.1 });
  await standsAt(ada, 'You', { x: 0.9, y: 0.9 });
  await isGhost(ada, 'Dan');
  await isNotOnMap(ada, 'u-77');

  line.toPage({ type: 'presence', room, seq: seq + 1, ts: 2, data: { left: [{ user: 'Dan', reason: 'timeout' }, { user: 'Cid', reason: 'left' }] } });
  await isNotOnMap(ada, 'Dan');
  await until(ada, 'why they left', () => /Cid left; Dan did not come back/.test(document.querySelector('#timeline-list .detail').textContent));
});

test('glides end where they should, and the loop with them', async () => {
  const page = await newWindow(context);
  await page.goto(`${gateways[0]}/`);
  const glide = () => page.evaluate(async () => {
    const { createGlide } = await import('/assets/glide.js');
    const frame = () => new Promise(requestAnimationFrame);
    const shown = [];
    const { jump, to } = createGlide(({ x }) => shown.push(x));
    const mark = {};
    jump(mark, { x: 0, y: 0 });
    to(mark, { x: 0.9, y: 0 }, 600);
    while (shown.length < 3 && mark.x < 0.9) await frame();
    // A new place on the way: on from where it is shown.
    const turned = mark.x;
    to(mark, { x: 0.3, y: 0 }, 300);
    while (mark.x !== 0.3) await frame();
    const drawn = shown.length;
    for (let still = 0; still < 5; still += 1) await frame();
    return { shown, turned, drawnAfter: shown.length - drawn };
  });
  const { shown, turned, drawnAfter } = await glide();
  assert.equal(drawnAfter, 0);
  const turn = shown.indexOf(turned);
  const between = (list, from, to) => list.every((x, at) => (at === 0 ? true : (x - list[at - 1]) * (to - from) >= 0));
  assert.ok(between(shown.slice(0, turn + 1), 0, 0.9) && between(shown.slice(turn), turned, 0.3), shown.join(' '));

  await page.emulateMedia({ reducedMotion: 'reduce' });
  assert.deepEqual((await glide()).shown, [0, 0.9, 0.3], 'no motion where none is wanted');
});

test('places are kept as long as they are true', async () => {
  const page = await newWindow(context);
  await page.goto(`${gateways[0]}/`);
  const seen = await page.evaluate(async () => {
    const { Places, startOf } = await import('/assets/places.js');
    const places = new Places();
    const record = (x) => ({ id: 'a', position: { x, y: 0 } });
    const seen = {};
    places.told(record(0.1), 0);
    seen.told = places.get('a').x;
    places.heard({ a: { x: 0.123456, y: 0 }, b: { x: 1, y: 1 } }, 1_000);
    places.told(record(0.2), 1_500);
    seen.heard = places.get('a').x;
    places.told(record(0.3), 9_000);
    seen.toldLater = places.get('a').x;
    places.told({ id: 'a' }, 9_000);
    seen.none = JSON.stringify(places.get('a')) === JSON.stringify(startOf('a'));
    places.told({ id: 'own', position: { x: 0.4, y: 0.4 } }, 9_000);
    seen.recent = [places.recent(30_000), places.recent(31_001)];
    seen.own = places.get('own').x;
    const starts = Array.from({ length: 500 }, (_, at) => startOf(`u-${at}`)).flatMap(({ x, y }) => [x, y]);
    seen.starts = [Math.min(...starts) >= 0.08, Math.max(...starts) <= 0.92, Math.min(...starts) < 0.12, Math.max(...starts) > 0.88];
    return seen;
  });
  assert.deepEqual(seen, { told: 0.1, heard: 0.1235, toldLater: 0.3, none: true, recent: [['b'], []], own: 0.4, starts: [true, true, true, true] });
});
