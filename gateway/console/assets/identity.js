// Who this window is, what it remembers, and which names are allowed.

import { randomId } from './client.js';

const NOT_IN_ROOM = /[^A-Za-z0-9._~:-]/u;
// No controls, no lone surrogates, no line separators.
const NAME = /^[^\p{Cc}\p{Cs}\p{Zl}\p{Zp}]{1,128}$/u;

/** Storage may be switched off in a browser; then nothing is remembered, and the page works all the same. */
function stored(kind) {
  return {
    get(key) {
      try {
        return window[kind].getItem(`roomgate.${key}`);
      } catch {
        return null;
      }
    },
    set(key, value) {
      try {
        window[kind].setItem(`roomgate.${key}`, value);
      } catch {
        // Not remembered.
      }
    },
  };
}

/** Lives as long as the tab, also over a reload: two windows are two users. */
export const tab = stored('sessionStorage');
/** Shared by all windows of this browser, for good. */
export const browser = stored('localStorage');

export function userId() {
  const id = tab.get('user') ?? randomId('u-');
  tab.set('user', id);
  return id;
}

/** What is wrong with a room id, or `''`. */
export function roomError(room) {
  if (room === '') return 'Enter a room, such as lobby.';
  if (room.length > 128) return `A room has at most 128 characters; this has ${room.length}.`;
  const wrong = NOT_IN_ROOM.exec(room)?.[0];
  if (wrong) return `${/\s/.test(wrong) ? 'A space' : `“${wrong}”`} is not allowed in a room.`;
  return '';
}

/** What is wrong with a name, or `''`. */
export function nameError(name) {
  const length = [...name].length;
  if (length === 0) return 'Enter a name.';
  if (length > 128) return `A name has at most 128 characters; this has ${length}.`;
  if (!NAME.test(name)) return 'A name has no control characters.';
  return '';
}

/** The link for others: the room only, for the name is one's own. */
export function roomLink(room) {
  return `${location.origin}/?room=${encodeURIComponent(room)}`;
}

/** The gateway that served this page. Spaces as %20: a `+` means a space in forms only. */
export function socketUrl(user, name) {
  const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
  return `${scheme}://${location.host}/ws?user=${encodeURIComponent(user)}&name=${encodeURIComponent(name)}`;
}
