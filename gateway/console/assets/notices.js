// Short notices: refused commands with their code, and small successes.

import { byId, el } from './dom.js';

const SHOWN_MS = 10_000;
const MOST = 3;

const WORDS = {
  kicked: 'You were put out of this room.',
  banned: 'You are banned from this room.',
  room_closed: 'This room is completed.',
  not_found: 'It is not there any more.',
  unauthenticated: 'This token is not accepted.',
  rate_limited: 'Too fast. Slow down a little.',
  cooldown: 'Slow mode is on in this room.',
  muted: 'You are muted in this room.',
  forbidden: 'You may not do this here.',
  too_large: 'That is too large.',
  state_too_large: 'The shared state is full.',
  conflict: 'Somebody else changed it first.',
  unavailable: 'Redis cannot be reached.',
  room_unavailable: 'This room is out of order for the moment.',
  room_full: 'The room is full.',
  timeout: 'The store was too slow.',
  no_answer: 'No answer from the gateway.',
  disconnected: 'Not connected.',
};

/** What a code means, in a sentence for people; the server's own words where the code is not known. */
export const words = ({ code = 'error', message = '' } = {}) => WORDS[code] ?? (message || 'The gateway refused this.');

/** A sentence for people; the code stays readable beside it. An unknown code has the server's own words. */
export function explain({ code = 'error', message = '', retryAfterMs } = {}) {
  const said = words({ code, message });
  const again = Number.isFinite(retryAfterMs) ? ` Try again in ${(retryAfterMs / 1000).toFixed(1)} s.` : '';
  return { text: `${said}${again}`, detail: message && message !== said ? message : '', code };
}

export function showError(error) {
  const { text, detail, code } = explain(error);
  show('error', text, el('code', {}, code), detail ? el('span', { className: 'muted' }, detail) : null);
}

export function showNote(text) {
  show('note', text);
}

function show(kind, text, ...more) {
  const box = byId('notices');
  const close = el('button', { type: 'button', className: 'small', ariaLabel: 'Dismiss' }, '×');
  const notice = el('div', { className: `notice ${kind}` }, el('p', {}, text, ' ', ...more.flatMap((part) => (part ? [part, ' '] : []))), close);
  const timer = setTimeout(() => notice.remove(), SHOWN_MS);
  close.addEventListener('click', () => {
    clearTimeout(timer);
    notice.remove();
  });
  // The same trouble again replaces its notice instead of filling the screen.
  for (const old of [...box.children]) if (old.textContent === notice.textContent) old.remove();
  box.append(notice);
  while (box.children.length > MOST) box.firstElementChild.remove();
}
