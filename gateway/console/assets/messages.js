// The rows of the chat: messages with their menus, and those that are on their way.

import { paintMark } from './colours.js';
import { countdown } from './countdown.js';
import { el, timeNode } from './dom.js';
import { menuButton } from './menu.js';
import { explain, words } from './notices.js';

const IMAGE = /^data:image\/(png|jpeg|gif|webp);base64,/;

function bodyNode({ kind, body }) {
  if (kind === 'image' && typeof body === 'string' && IMAGE.test(body)) return el('img', { src: body, alt: 'Image' });
  return el('span', { className: 'text' }, typeof body === 'string' ? body : JSON.stringify(body) ?? '');
}

/** Only text can be written anew. */
export const isEditable = ({ kind, body }) => kind !== 'image' && typeof body === 'string';

export const menuKey = (message) => `message ${message.id}`;

function menuOf(message, { own, actions }) {
  const sure = {
    title: 'Delete this message for everybody?',
    items: [{ label: 'Delete', danger: true, act: () => actions.remove(message) }, { label: 'Keep' }],
  };
  const edit = own && isEditable(message) ? [{ label: 'Edit', act: () => actions.edit(message) }] : [];
  return { items: [...edit, { label: 'Delete …', danger: true, ...sure }] };
}

/** `changes`: whether this user may change it. */
export function messageRow(message, author, { own, follows, changes, actions }) {
  const mark = el('span', { className: 'mark', ariaHidden: 'true' });
  paintMark(mark, author);
  const head = el('p', { className: 'head' }, el('span', { className: 'name' }, own ? 'You' : author.name), ' ', timeNode(message.ts));
  const edited = message.editedAt ? el('span', { className: 'muted' }, ' (edited)') : null;
  const whose = own ? 'your message' : `the message of ${author.name}`;
  const menu = changes ? menuButton(menuKey(message), `Actions for ${whose}`, () => menuOf(message, { own, actions })) : null;
  const said = el('div', { className: 'said' }, el('p', { className: 'bubble' }, bodyNode(message), edited), menu);
  const row = el('li', {}, mark, el('div', { className: 'words' }, head, said));
  row.classList.toggle('own', own);
  row.classList.toggle('follows', follows);
  row.dataset.message = message.id;
  return row;
}

function button(label, act) {
  const made = el('button', { type: 'button', className: 'small' }, label);
  made.addEventListener('click', act);
  return made;
}

/** What stands under a message that is on its way. */
function fate(entry, actions) {
  const { error, resendsAt, id } = entry;
  const discard = () => button('Discard', () => actions.discard(id));
  // It goes out again by itself.
  if (resendsAt) {
    const away = error ? discard() : null;
    return el('p', { className: 'muted held', role: 'status' }, words(error ?? entry.held), ' Goes out ', countdown(resendsAt), ' ', away);
  }
  if (!error) return el('p', { className: 'muted' }, 'sending');
  const { text, code } = explain(error);
  const again = error.retryable ? button('Send again', () => actions.say(entry.body, entry)) : null;
  return el('p', { className: 'failed', role: 'alert' }, text, ' ', el('code', {}, code), ' ', again, ' ', discard());
}

export function outgoingRow(entry, actions) {
  const bubble = el('p', { className: 'bubble' }, bodyNode(entry));
  return el('li', { className: 'own outgoing' }, el('div', { className: 'words' }, bubble, fate(entry, actions)));
}
