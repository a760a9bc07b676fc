// What the page shows when users are lost for good: see page.test.mjs for how to run it. Besides two gateways this wants
// the settings PRESENCE_GRACE_SECONDS=1, SWEEP_INTERVAL_SECONDS=1 and NODE_LEASE_SECONDS=4, and in ROOMGATE_PIDS the
// gateways' processes, of which the second is killed.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { context, eachTest, isNotOnMap, member, press, room, standsAt, tap, textIs, until } from './support.mjs';

const pids = (process.env.ROOMGATE_PIDS ?? '').split(',').filter(Boolean).map(Number);
const skip = pids.length < 2 && 'ROOMGATE_PIDS does not list the processes of two gateways';

eachTest();

/** First a ghost where it was, then nobody, and the list and the events say so too. */
async function seesGhostGo(page, name, place) {
  await standsAt(page, name, place, { ghost: true });
  await isNotOnMap(page, name);
  await textIs(page, '#room-people', '1 member, 1 connection');
  const said = (what) => until(page, what, (text) => [...document.querySelectorAll('#timeline-list .detail')].some((row) => row.textContent === text), what);
  await said(`${name} away`);
  await said(`${name} did not come back`);
}

test('a lost window is a ghost at its place, and vanishes when its time is up', { skip }, async () => {
  const line = {};
  const ada = await member(context, { room, name: 'Ada' });
  const bea = await member(context, { room, name: 'Bea', index: 1, prepare: tap(line) });
  await press(bea, { x: 0.8, y: 0.3 });
  await standsAt(ada, 'Bea', { x: 0.8, y: 0.3 });
  const seen = seesGhostGo(ada, 'Bea', { x: 0.8, y: 0.3 });
  await line.cut(1012, '60000');
  await seen;

  // It comes back to where it was, as somebody new.
  await bea.click('#phase-retry');
  await standsAt(ada, 'Bea', { x: 0.8, y: 0.3 });
  await textIs(ada, '#room-people', '2 members, 2 connections');
});

// The last one: only one gateway is left behind it.
test('the users of a killed gateway turn to ghosts, and vanish', { skip }, async () => {
  const ada = await member(context, { room, name: 'Ada' });
  const bea = await member(context, { room, name: 'Bea', index: 1 });
  await press(bea, { x: 0.2, y: 0.7 });
  await standsAt(ada, 'Bea', { x: 0.2, y: 0.7 });
  const seen = seesGhostGo(ada, 'Bea', { x: 0.2, y: 0.7 });
  process.kill(pids[1], 'SIGKILL');
  await until(bea, 'the loss', () => document.querySelector('#phase').dataset.phase === 'waiting');
  await bea.locator('#map-stale').waitFor({ state: 'visible' });
  // Its gateway refuses it, and the browser complains of that; it cannot come back in any case.
  await bea.close();
  await seen;
});
