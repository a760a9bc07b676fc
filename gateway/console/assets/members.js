// The members of the room: who they are, whether they are here, and which node serves them.

import { colourOf, isColour, paintMark } from './colours.js';
import { byId, el, setText, timeText } from './dom.js';

/** Oneself first, then those who are here, then the ghosts, each by name. */
function sorted(users, own) {
  const rank = (user) => (user.id === own ? 0 : user.status === 'away' ? 2 : 1);
  return [...users].sort((a, b) => rank(a) - rank(b) || String(a.name).localeCompare(String(b.name)) || (a.id < b.id ? -1 : 1));
}

function details(user) {
  if (user.status === 'away') {
    const since = timeText(user.lastSeen ?? NaN);
    return since ? `away since ${since}` : 'away';
  }
  const node = user.presence?.node;
  const parts = [typeof node === 'string' ? `on ${node}` : 'node not told'];
  if (user.connections > 1) parts.push(`${user.connections} connections`);
  return parts.join(', ');
}

function memberRow(user, own) {
  const mark = el('span', { className: 'mark', ariaHidden: 'true' });
  paintMark(mark, user);
  const name = el('span', { className: 'name' }, user.name || user.id);
  if (user.id === own) name.append(' ', el('span', { className: 'you' }, 'you'));
  const row = el('li', { title: user.id }, mark, el('span', { className: 'who' }, name, el('span', { className: 'muted' }, details(user))));
  row.classList.toggle('away', user.status === 'away');
  row.dataset.user = user.id;
  return row;
}

function countText({ phase, room: { epoch, users, members, counted } }) {
  if (!epoch) return '';
  const people = `${members} ${members === 1 ? 'member' : 'members'}`;
  if (phase.name !== 'open') return `${people} when last connected`;
  if (counted) return people;
  const connections = [...users.values()].reduce((sum, user) => sum + (user.connections ?? 0), 0);
  return `${people}, ${connections} ${connections === 1 ? 'connection' : 'connections'}`;
}

export function createMembers(actions) {
  const list = byId('members-list');
  const colour = byId('own-colour');
  colour.addEventListener('change', () => actions.wear(colour.value));

  return {
    render(session) {
      const { room, user } = session;
      setText(byId('room-people'), countText(session));
      byId('members-counted').hidden = !room.counted;
      list.replaceChildren(...sorted(room.users.values(), user).map((member) => memberRow(member, user)));

      const chosen = room.users.get(user)?.presence?.colour ?? session.colour;
      const shown = isColour(chosen) ? chosen : colourOf(user);
      // Not while it is being chosen.
      if (document.activeElement !== colour) colour.value = shown;
    },
  };
}
