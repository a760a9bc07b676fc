// The form at the start: a name and a room, checked here so that a mistake is explained in its place.

import { byId } from './dom.js';
import { browser, nameError, roomError, tab } from './identity.js';
import { claimsOf, tokenError } from './token.js';

export function createForm(onJoin) {
  const name = byId('start-name');
  const room = byId('start-room');
  const token = byId('start-token');

  function check(input, error) {
    byId(`${input.id}-error`).textContent = error;
    input.setAttribute('aria-invalid', String(error !== ''));
    return error === '';
  }

  function submit() {
    name.value = name.value.trim();
    room.value = room.value.trim();
    token.value = token.value.trim();
    const claims = claimsOf(token.value);
    // The gateway takes the name from the token.
    if (claims && !name.value) name.value = claims.name ?? claims.sub;
    const nameGood = check(name, nameError(name.value));
    const roomGood = check(room, roomError(room.value));
    const tokenGood = check(token, token.value && tokenError(token.value));
    if (!nameGood) return name.focus();
    if (!roomGood) return room.focus();
    if (!tokenGood) {
      byId('start-token-box').open = true;
      return token.focus();
    }
    browser.set('name', name.value);
    browser.set('room', room.value);
    tab.set('name', name.value);
    // Never beyond this tab.
    tab.set('token', token.value);
    return onJoin({ name: name.value, room: room.value, token: token.value });
  }

  byId('start-again').addEventListener('click', submit);
  byId('start-form').addEventListener('submit', (event) => {
    event.preventDefault();
    submit();
  });
  for (const input of [name, room, token]) input.addEventListener('input', () => check(input, ''));

  return {
    /** Fills the form from the link, this tab or this browser; joins at once when `atOnce` and all is good. */
    fill(given, atOnce) {
      name.value = given.name ?? tab.get('name') ?? browser.get('name') ?? '';
      room.value = given.room ?? browser.get('room') ?? 'lobby';
      token.value = tab.get('token') ?? '';
      if (atOnce) submit();
      else this.focus();
    },
    focus() {
      (name.value ? room : name).focus();
    },
    /** Another token than the one that was given. */
    keepToken(next) {
      token.value = next;
      tab.set('token', next);
    },
    /** The token is of no use any more: asks for another one. */
    askForToken() {
      this.keepToken('');
      byId('start-token-box').open = true;
      token.focus();
    },
    /** Why the last stay ended, and what the button is called that leads back in, if one does. */
    say(text, again = '') {
      byId('start-out-text').textContent = text;
      byId('start-out').hidden = !text;
      byId('start-again').textContent = again;
      byId('start-again').hidden = !again;
      if (again) byId('start-again').focus();
    },
  };
}
