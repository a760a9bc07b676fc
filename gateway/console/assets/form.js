// The form at the start: a name and a room, checked here so that a mistake is explained in its place.

import { byId } from './dom.js';
import { browser, nameError, roomError, tab } from './identity.js';

export function createForm(onJoin) {
  const name = byId('start-name');
  const room = byId('start-room');

  function check(input, error) {
    byId(`${input.id}-error`).textContent = error;
    input.setAttribute('aria-invalid', String(error !== ''));
    return error === '';
  }

  function submit() {
    name.value = name.value.trim();
    room.value = room.value.trim();
    const nameGood = check(name, nameError(name.value));
    const roomGood = check(room, roomError(room.value));
    if (!nameGood) return name.focus();
    if (!roomGood) return room.focus();
    browser.set('name', name.value);
    browser.set('room', room.value);
    tab.set('name', name.value);
    return onJoin({ name: name.value, room: room.value });
  }

  byId('start-form').addEventListener('submit', (event) => {
    event.preventDefault();
    submit();
  });
  for (const input of [name, room]) input.addEventListener('input', () => check(input, ''));

  return {
    /** Fills the form from the link, this tab or this browser; joins at once when `atOnce` and all is good. */
    fill(given, atOnce) {
      name.value = given.name ?? tab.get('name') ?? browser.get('name') ?? '';
      room.value = given.room ?? browser.get('room') ?? 'lobby';
      if (atOnce) submit();
      else this.focus();
    },
    focus() {
      (name.value ? room : name).focus();
    },
    /** Why the last stay ended. */
    say(why) {
      byId('start-out').textContent = why;
      byId('start-out').hidden = !why;
    },
  };
}
