// Messages after they were sent, and images: see page.test.mjs for how to run it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { browser, chatIs, context, eachTest, gateways, member, newWindow, room, say, tap, textIs, until } from './support.mjs';

eachTest();

const focusIn = (page, id) => until(page, `the focus in ${id}`, (id) => document.activeElement.id === id, id);
const edited = (page) => until(page, '(edited)', () => document.querySelector('#chat-list .bubble')?.textContent.endsWith('(edited)'));

test('an own message is edited by keyboard, and all see it', async () => {
  const ada = await member(context, { room, name: 'Ada' });
  const bea = await member(context, { room, name: 'Bea', index: 1 });
  await say(ada, 'frist');
  await chatIs(bea, ['frist']);
  await chatIs(ada, ['frist']);
  await ada.press('#chat-input', 'ArrowUp');
  await until(ada, 'the text in the line', () => document.querySelector('#chat-input').value === 'frist');
  await ada.press('#chat-input', 'Escape');
  await ada.locator('#chat-editing').waitFor({ state: 'hidden' });
  assert.equal(await ada.inputValue('#chat-input'), '');
  assert.ok(await ada.isVisible('#room'), 'Escape has left the edit, not the room');

  await ada.press('#chat-input', 'ArrowUp');
  await say(ada, 'first');
  await chatIs(ada, ['first']);
  await chatIs(bea, ['first']);
  await edited(bea);
  await focusIn(ada, 'chat-input');
});

test('a message changed meanwhile is not overwritten unseen', async () => {
  const line = {};
  const ada = await member(context, { room, name: 'Ada', prepare: tap(line) });
  await say(ada, 'one');
  await chatIs(ada, ['one']);
  const again = await context.newPage();
  again.complaints = [];
  await ada.press('#chat-input', 'ArrowUp');
  // Another window of the same user changes it, and this one does not hear of it in time.
  line.deaf = true;
  const user = await ada.getAttribute('#members-list li', 'data-user');
  await again.goto(`${gateways[0]}/`);
  const id = await ada.getAttribute('#chat-list li', 'data-message');
  await again.evaluate(async ([room, user, messageId]) => {
    const { Client } = await import('/assets/client.js');
    await new Promise((resolve, reject) => {
      const nothing = () => {};
      const run = async () => {
        await client.command('join', { room });
        await client.command('message.edit', { room, data: { messageId, body: 'two' } });
      };
      const url = `${location.origin.replace('http', 'ws')}/ws?user=${user}&name=Ada`;
      const client = new Client(url, { onWelcome: () => run().then(resolve, reject), onFrame: nothing, onPhase: nothing, onRoundTrip: nothing });
      client.open();
    });
  }, [room, user, id]);
  line.deaf = false;
  await say(ada, 'three');
  await until(ada, 'the newer text', () => document.querySelector('#chat-trouble').textContent.includes('“two”'));
  assert.equal(await ada.inputValue('#chat-input'), 'three');
  await ada.press('#chat-input', 'Enter');
  await chatIs(ada, ['three']);
});

test('an own message is deleted by touch, after a question, and has no menu for others', async () => {
  const phone = await browser.newContext({ viewport: { width: 360, height: 640 }, isMobile: true, hasTouch: true });
  try {
    const ada = await member(phone, { room, name: 'Ada' });
    const bea = await member(context, { room, name: 'Bea', index: 1 });
    await say(ada, 'wrong');
    await say(ada, 'right');
    await chatIs(bea, ['wrong', 'right']);
    await chatIs(ada, ['wrong', 'right']);
    assert.equal(await bea.locator('#chat-list .menu-button').count(), 0);
    const menu = ada.getByRole('button', { name: 'Actions for your message' }).first();
    await menu.tap();
    await ada.getByRole('menuitem', { name: 'Delete …' }).tap();
    await ada.getByRole('menuitem', { name: 'Keep' }).tap();
    await until(ada, 'the focus on the menu button', () => document.activeElement.classList.contains('menu-button'));
    await menu.tap();
    await ada.getByRole('menuitem', { name: 'Delete …' }).tap();
    await ada.getByRole('menuitem', { name: 'Delete' }).tap();
    await chatIs(ada, ['right']);
    await chatIs(bea, ['right']);
    await until(ada, 'no horizontal scroll', () => document.documentElement.scrollWidth <= innerWidth);
    assert.deepEqual(ada.complaints, []);
  } finally {
    await phone.close();
  }
});

test('an image that is too large is made smaller, and one that is none is refused in words', async () => {
  const ada = await member(context, { room, name: 'Ada' });
  const bea = await member(context, { room, name: 'Bea', index: 1 });
  const noise = await ada.evaluate(() => {
    const canvas = Object.assign(document.createElement('canvas'), { width: 800, height: 600 });
    const pixels = new ImageData(800, 600);
    for (let at = 0; at < pixels.data.length; at += 65536) crypto.getRandomValues(pixels.data.subarray(at, at + 65536));
    for (let at = 3; at < pixels.data.length; at += 4) pixels.data[at] = 255;
    canvas.getContext('2d').putImageData(pixels, 0, 0);
    return canvas.toDataURL('image/png').split(',')[1];
  });
  const buffer = Buffer.from(noise, 'base64');
  assert.ok(buffer.length > 1024 * 1024, 'larger than a message may be');
  await ada.setInputFiles('#chat-file', { name: 'noise.png', mimeType: 'image/png', buffer });
  await until(bea, 'the image', () => {
    const image = document.querySelector('#chat-list img');
    return image?.complete && image.naturalWidth > 0;
  });
  const [length, ratio] = await bea.locator('#chat-list img').evaluate((image) => [image.src.length, image.naturalWidth / image.naturalHeight]);
  assert.ok(length < 1024 * 1024);
  assert.ok(Math.abs(ratio - 4 / 3) < 0.02);

  await ada.setInputFiles('#chat-file', { name: 'broken.png', mimeType: 'image/png', buffer: Buffer.from('no image') });
  await textIs(ada, '#chat-trouble', 'This file is no image that the browser can show.');

  // Pasted: as small as it is it goes as it is.
  await ada.evaluate(async () => {
    const canvas = Object.assign(document.createElement('canvas'), { width: 2, height: 2 });
    const blob = await new Promise((resolve) => canvas.toBlob(resolve));
    const clipboardData = new DataTransfer();
    clipboardData.items.add(new File([blob], 'dot.png', { type: 'image/png' }));
    document.querySelector('#chat-input').dispatchEvent(new ClipboardEvent('paste', { clipboardData, cancelable: true, bubbles: true }));
  });
  await until(bea, 'both images', () => document.querySelectorAll('#chat-list img').length === 2);
});

test('in slow mode a message waits for its time and goes out by itself', async () => {
  const line = {};
  const ada = await member(context, { room, name: 'Ada', prepare: tap(line) });
  line.refuses = { code: 'cooldown', message: 'Slow.', retryable: true, retryAfterMs: 1500 };
  await say(ada, 'later');
  await until(ada, 'the countdown', () => /^Slow mode is on in this room\. Goes out in \d s/.test(document.querySelector('#chat-outgoing .held')?.textContent));
  line.refuses = null;
  await chatIs(ada, ['later']);
});

test('permissions are read from a token, and what is offered at the handshake has it', async () => {
  const page = await newWindow(context);
  await page.goto(`${gateways[0]}/`);
  const found = await page.evaluate(async () => {
    const { permissions, subprotocols, tokenError } = await import('/assets/token.js');
    const part = (value) => btoa(JSON.stringify(value)).replaceAll('=', '').replaceAll('+', '-').replaceAll('/', '_');
    const token = `${part({})}.${part({ sub: 'x', rooms: { 'a-*': ['join'], 'a-1': ['moderate'], b: ['*'] } })}.c2ln`;
    const of = (room) => [...permissions(token, room)].sort().join();
    return [of('a-1'), of('a-2'), of('b'), of('c'), tokenError(token), subprotocols(token)[1] === `bearer.${token}`, tokenError('x') !== ''];
  });
  assert.deepEqual(found, ['join,moderate', 'join', 'join,manage,moderate,send,state', '', '', true, true]);
});
