// The members of the room: who they are, whether they are here, and which node serves them.

import { colourOf, isColour, paintMark } from './colours.js';
import { untilText } from './countdown.js';
import { byId, el, placeRows, setText, timeText } from './dom.js';
import { focusMenu, menuButton } from './menu.js';

const TIMES = [['5 minutes', 300_000], ['1 hour', 3_600_000], ['1 day', 86_400_000]];

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

/** What a moderator may do with a member: each asks for how long, which is also the last word before it is done. */
function menuOf(user, mute, actions) {
  const name = user.name || user.id;
  const choose = (verb, title, endless) => ({
    title,
    items: [
      ...TIMES.map(([label, ms]) => ({ label: `For ${label}`, danger: true, act: () => actions.moderate(verb, user.id, ms) })),
      { label: endless, danger: true, act: () => actions.moderate(verb, user.id) },
      { label: 'Cancel' },
    ],
  });
  const muting = mute
    ? { label: 'Unmute', act: () => actions.moderate('unmute', user.id) }
    : { label: 'Mute …', ...choose('mute', `Mute ${name}?`, 'Without an end') };
  return {
    items: [
      muting,
      { label: 'Kick …', ...choose('kick', `Put ${name} out of the room?`, 'May come back at once') },
      { label: 'Ban …', danger: true, ...choose('ban', `Ban ${name}?`, 'Without an end') },
    ],
  };
}

function memberRow(user, { own, mute, moderates, actions }) {
  const mark = el('span', { className: 'mark', ariaHidden: 'true' });
  paintMark(mark, user);
  const name = el('span', { className: 'name' }, user.name || user.id);
  if (user.id === own) name.append(' ', el('span', { className: 'you' }, 'you'));
  if (mute) name.append(' ', el('span', { className: 'silenced', title: mute.reason ?? '' }, `muted${untilText(mute.until)}`));
  const who = el('span', { className: 'who' }, name, el('span', { className: 'muted' }, details(user)));
  const label = `Moderate ${user.name || user.id}`;
  const menu = moderates && user.id !== own ? menuButton(`member ${user.id}`, label, () => menuOf(user, mute, actions)) : null;
  const row = el('li', { title: user.id }, mark, who, menu);
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
  // Rows by user id, each with what it was made of: a row that is made again takes the button from under the finger.
  let rows = new Map();

  function rowsOf(session) {
    const { room, user: own } = session;
    const moderates = session.may('moderate');
    const made = new Map();
    for (const user of sorted(room.users.values(), own)) {
      const mute = session.muteOf(user.id);
      const looks = { own, mute, moderates, actions };
      const madeOf = JSON.stringify([user.name, user.presence?.colour, user.status, details(user), own, mute, moderates]);
      const known = rows.get(user.id);
      made.set(user.id, known?.madeOf === madeOf ? known : { row: memberRow(user, looks), madeOf });
    }
    return made;
  }

  return {
    render(session) {
      const { room, user } = session;
      setText(byId('room-people'), countText(session));
      byId('members-counted').hidden = !room.counted;
      const focused = list.contains(document.activeElement) ? document.activeElement.dataset.menu : undefined;
      rows = rowsOf(session);
      placeRows(list, [...rows.values()].map(({ row }) => row));
      if (focused && document.activeElement?.dataset.menu !== focused) focusMenu(focused);

      const chosen = room.users.get(user)?.presence?.colour ?? session.colour;
      const shown = isColour(chosen) ? chosen : colourOf(user);
      // Not while it is being chosen.
      if (document.activeElement !== colour) colour.value = shown;
    },
  };
}
