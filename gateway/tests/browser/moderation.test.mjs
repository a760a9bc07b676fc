// What moderators do, and tokens: see page.test.mjs for how to run it. The gateways want AUTH_MODE=jwt, and the secret
// that they check tokens with stands in ROOMGATE_SECRET.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { test } from 'node:test';
import { chatIs, context, eachTest, gateways, newWindow, room, say, tap, textIs, until } from './support.mjs';

const secret = process.env.ROOMGATE_SECRET;
const skip = !secret && 'ROOMGATE_SECRET is not set';

eachTest();

function token(user, permissions, seconds = 3600) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const exp = Math.floor(Date.now() / 1000) + seconds;
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub: user, name: user, exp, rooms: { [room]: permissions } })}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

async function enter(page, given) {
  await page.fill('#start-room', room);
  if (!(await page.locator('#start-token-box[open]').count())) await page.click('#start-token-box summary');
  await page.fill('#start-token', given);
  await page.getByRole('button', { name: 'Join', exact: true }).click();
}

const joined = (page) => until(page, 'the join', () => document.querySelector('#members-list li .you') !== null);

/** A window whose user has this token. Each stands for a browser of its own, so for a user of its own. */
async function holder(name, permissions, { index = 0, seconds, prepare = async () => {} } = {}) {
  const page = await newWindow(context);
  await prepare(page);
  await page.goto(`${gateways[index % gateways.length]}/`);
  await page.fill('#start-name', name);
  await enter(page, token(name, permissions, seconds));
  await joined(page);
  return page;
}

const both = async () => [
  await holder('Mod', ['*']),
  await holder('Bea', ['join', 'send', 'state'], { index: 1 }),
];

async function moderate(page, name, ...steps) {
  await page.getByRole('button', { name: `Moderate ${name}` }).click();
  for (const step of steps) await page.getByRole('menuitem', { name: step }).click();
}

test('who is muted cannot write, is told why and until when, and may write again', { skip }, async () => {
  const [mod, bea] = await both();
  assert.equal(await bea.locator('#members-list .menu-button').count(), 0);
  await moderate(mod, 'Bea', 'Mute …', 'For 5 minutes');
  await until(bea, 'the mute', () => document.querySelector('#chat-input').disabled && /^You are muted until .+ It ends in \d+ (s|min)\.$/.test(document.querySelector('#chat-note').textContent));
  await until(mod, 'the mark', () => document.querySelector('#members-list .silenced')?.textContent.startsWith('muted until'));
  await moderate(mod, 'Bea', 'Unmute');
  await until(bea, 'the end of the mute', () => !document.querySelector('#chat-input').disabled);
  await say(bea, 'back');
  await chatIs(mod, ['back']);

  // Another's message goes as well.
  await mod.hover('#chat-list li');
  await mod.getByRole('button', { name: 'Actions for the message of Bea' }).click();
  await mod.getByRole('menuitem', { name: 'Delete …' }).click();
  await mod.getByRole('menuitem', { name: 'Delete' }).click();
  await chatIs(bea, []);
});

test('after a kick one may join again, after a ban not', { skip }, async () => {
  const [mod, bea] = await both();
  await moderate(mod, 'Bea', 'Kick …', 'May come back at once');
  await until(bea, 'the kick', () => document.querySelector('#start-out-text').textContent.startsWith('You were put out of this room.'));
  await bea.getByRole('button', { name: 'Join again' }).click();
  await joined(bea);
  await moderate(mod, 'Bea', 'Ban …', 'For 1 hour');
  await until(bea, 'the ban', () => /^You are banned from this room until .+\.$/.test(document.querySelector('#start-out-text').textContent));
  assert.ok(await bea.locator('#start-again').isHidden());
});

test('a room is configured, completed and opened again', { skip }, async () => {
  const [mod, bea] = await both();
  assert.ok(await bea.locator('#manage').isHidden());
  await mod.click('#manage summary');
  await mod.fill('#manage-name', 'The quiet one');
  await mod.fill('#manage-slow', '30');
  await mod.uncheck('#manage-images');
  await mod.click('#manage-form button');
  await textIs(bea, '#room-name', 'The quiet one');
  await textIs(bea, '#chat-slow', 'Slow mode: one message in 30 s.');
  assert.ok(await bea.locator('#chat-image').isHidden());
  await say(bea, 'one');
  await say(bea, 'two');
  await until(bea, 'the second to wait', () => /Goes out in \d+ s/.test(document.querySelector('#chat-outgoing .held')?.textContent));
  await bea.getByRole('button', { name: 'Discard' }).click();
  await chatIs(bea, ['one']);

  await mod.click('#manage-complete');
  await mod.getByRole('menuitem', { name: 'Complete' }).click();
  await textIs(bea, '#start-out-text', 'This room is completed.');
  await textIs(mod, '#start-out-text', 'This room is completed.');
  await bea.getByRole('button', { name: 'Open again' }).click();
  await joined(bea);
});

test('a token that ends is replaced in place', { skip }, async () => {
  const ada = await holder('Ada', ['join', 'send'], { seconds: 50 });
  await ada.locator('#token-banner').waitFor({ state: 'visible' });
  await ada.fill('#token-next', token('Somebody', ['join']));
  await ada.press('#token-next', 'Enter');
  await textIs(ada, '#token-next-error', 'This token is not accepted.');
  await ada.fill('#token-next', token('Ada', ['join', 'send']));
  await ada.press('#token-next', 'Enter');
  await ada.locator('#token-banner').waitFor({ state: 'hidden' });
  await say(ada, 'still here');
  await chatIs(ada, ['still here']);
});

test('a token that has ended leads back to the form, which asks for another one', { skip }, async () => {
  const line = {};
  const ada = await holder('Ada', ['join', 'send'], { prepare: tap(line) });
  await line.cut(4100, 'token expired');
  await textIs(ada, '#start-out-text', 'Disconnected: the token has expired (token expired).');
  await until(ada, 'the focus on the token', () => document.activeElement.id === 'start-token');
  await enter(ada, token('Ada', ['join']));
  await joined(ada);
  await until(ada, 'no leave to write', () => document.querySelector('#chat-input').disabled);
});
