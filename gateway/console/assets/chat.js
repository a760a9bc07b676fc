// The chat: history, what is on its way, and the line to write on.

import { paintMark } from './colours.js';
import { byId, el, setText, timeNode } from './dom.js';
import { explain } from './notices.js';

// Messages of one author within this time stand together under one name.
const TOGETHER_MS = 5 * 60_000;
const AT_END_PX = 40;
const IMAGE = /^data:image\/(png|jpeg|gif|webp);base64,/;

function bodyNode({ kind, body }) {
  if (kind === 'image' && typeof body === 'string' && IMAGE.test(body)) return el('img', { src: body, alt: 'Image' });
  return el('span', { className: 'text' }, typeof body === 'string' ? body : JSON.stringify(body) ?? '');
}

function messageRow(message, author, { own, follows }) {
  const mark = el('span', { className: 'mark', ariaHidden: 'true' });
  paintMark(mark, author);
  const head = el('p', { className: 'head' }, el('span', { className: 'name' }, own ? 'You' : author.name), ' ', timeNode(message.ts));
  const edited = message.editedAt ? el('span', { className: 'muted' }, ' (edited)') : null;
  const row = el('li', {}, mark, el('div', { className: 'words' }, head, el('p', { className: 'bubble' }, bodyNode(message), edited)));
  row.classList.toggle('own', own);
  row.classList.toggle('follows', follows);
  row.dataset.message = message.id;
  return row;
}

function outgoingRow(entry, actions) {
  const words = el('div', { className: 'words' }, el('p', { className: 'bubble' }, bodyNode(entry)));
  if (entry.error) {
    const { text, code } = explain(entry.error);
    const button = (label, act) => {
      const made = el('button', { type: 'button', className: 'small' }, label);
      made.addEventListener('click', act);
      return made;
    };
    const again = entry.error.retryable ? button('Send again', () => actions.say(entry.body, entry.id)) : null;
    const away = button('Discard', () => actions.discard(entry.id));
    words.append(el('p', { className: 'failed', role: 'alert' }, text, ' ', el('code', {}, code), ' ', again, ' ', away));
  } else {
    words.append(el('p', { className: 'muted' }, 'sending'));
  }
  return el('li', { className: 'own outgoing' }, words);
}

export function createChat(actions) {
  const scroll = byId('chat-scroll');
  const list = byId('chat-list');
  const input = byId('chat-input');
  const latest = byId('chat-latest');
  const older = byId('chat-older');
  // Rows by message id, each with what it was made of, so that only what changed is made again.
  let rows = new Map();

  // Whether the reader is at the end, and so wants to stay there.
  let following = true;

  function toEnd() {
    following = true;
    latest.hidden = true;
    scroll.scrollTop = scroll.scrollHeight;
  }

  function send() {
    const text = input.value.trim();
    if (text === '') return;
    input.value = '';
    fit();
    actions.say(text);
    toEnd();
  }

  /** The line grows with what is written, up to the limit in the style sheet. */
  function fit() {
    input.style.height = 'auto';
    input.style.height = `${input.scrollHeight + 2}px`;
  }

  byId('chat-form').addEventListener('submit', (event) => {
    event.preventDefault();
    send();
  });
  input.addEventListener('input', fit);
  input.addEventListener('keydown', (event) => {
    // While a word is being composed (Japanese, Chinese, …) Enter ends the word, not the message.
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  latest.addEventListener('click', toEnd);
  scroll.addEventListener('scroll', () => {
    following = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < AT_END_PX;
    if (following) latest.hidden = true;
  });
  // An image that has come, a banner, a turned phone: the end moves without anyone scrolling.
  const sizes = new ResizeObserver(() => following && toEnd());
  for (const part of [scroll, list, byId('chat-outgoing')]) sizes.observe(part);
  older.addEventListener('click', async () => {
    // Old messages are to be read by eyes, not announced one by one.
    scroll.setAttribute('aria-busy', 'true');
    older.disabled = true;
    await actions.loadOlder();
    older.disabled = false;
  });

  function rowsOf(session) {
    const made = new Map();
    let previous = null;
    for (const message of session.room.inOrder()) {
      const author = session.room.person(String(message.by));
      const follows = previous?.by === message.by && message.ts - previous.ts < TOGETHER_MS;
      const madeOf = [message.version, follows, author.name, author.presence?.colour].join('\n');
      const known = rows.get(message.id);
      const row = known?.madeOf === madeOf ? known.row : messageRow(message, author, { own: message.by === session.user, follows });
      made.set(message.id, { row, madeOf });
      previous = message;
    }
    return made;
  }

  /** Puts the rows in their places and touches no row that is there already: a live region speaks what is added. */
  function place() {
    let at = list.firstChild;
    for (const { row } of rows.values()) {
      if (row === at) at = at.nextSibling;
      else list.insertBefore(row, at);
    }
    while (at) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  }

  return {
    render(session) {
      const bottom = scroll.scrollHeight - scroll.scrollTop;
      const first = list.firstChild;
      const last = list.lastChild;

      rows = rowsOf(session);
      place();
      byId('chat-outgoing').replaceChildren(...[...session.outgoing.values()].map((entry) => outgoingRow(entry, actions)));
      older.hidden = !session.room.older;
      byId('chat-empty').hidden = rows.size + session.outgoing.size > 0;
      setText(byId('chat-empty'), session.room.epoch ? 'No messages yet. Say something.' : 'Joining …');

      if (following) toEnd();
      // Older ones came above: what was being read stays where it is.
      else if (first !== list.firstChild) scroll.scrollTop = scroll.scrollHeight - bottom;
      else if (last !== list.lastChild) latest.hidden = false;
      requestAnimationFrame(() => scroll.setAttribute('aria-busy', 'false'));
    },
    focus() {
      // Where the page scrolls, one comes in at its top.
      input.focus({ preventScroll: true });
    },
    clear() {
      rows = new Map();
      list.replaceChildren();
      input.value = '';
      toEnd();
      fit();
    },
  };
}
