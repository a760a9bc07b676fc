// The map: everybody's mark where they are, oneself to be moved, those who are away as ghosts.

import { paintMark } from './colours.js';
import { byId, el, setText } from './dom.js';
import { createGlide } from './glide.js';
import { samePlace } from './places.js';
import { createSteering } from './steering.js';

// A glide takes as long as a user's frames are apart, and half as long again, so that a late frame is not a halt.
const SPACING_MS = 80;
const SLACK = 1.5;
const SHORTEST_MS = 50;
const LONGEST_MS = 200;
// In rooms of more members than this the gateway gathers moves for longer.
const SMALL_ROOM = 100;
const LONGEST_LARGE_MS = 1_000;
// As long as the style sheet lets a mark fade.
const FADE_MS = 250;

const longest = (room) => (room.members > SMALL_ROOM ? LONGEST_LARGE_MS : LONGEST_MS);
const bounded = (value, least, most) => Math.min(most, Math.max(least, value));

/** Who is shown. A room that only counts does not tell, so there it is oneself and whoever has moved of late. */
function shown({ room, user, welcome, colour }) {
  if (!room.epoch) return [];
  if (!room.counted) return [...room.users.values()];
  const self = { id: user, name: welcome?.user?.name ?? user, presence: { colour } };
  return [self, ...room.places.recent().filter((id) => id !== user).map((id) => room.person(id))];
}

export function createMap(actions) {
  const box = byId('map');
  const plane = byId('map-plane');
  // By user id: `{ node, mark, name, madeOf, place, x, y, heardAt, spacing }`.
  const avatars = new Map();
  let size = { width: 0, height: 0 };
  let own = null;
  let current = null;

  const glide = createGlide(({ node, x, y }, resting) => {
    // Whole pixels where it rests: the name is sharp then.
    const px = (part, whole) => (part * whole).toFixed(resting ? 0 : 1);
    node.style.transform = `translate(${px(x, size.width)}px, ${px(y, size.height)}px)`;
  });

  // Sizes come from here alone: the loop that moves marks never asks the layout.
  new ResizeObserver(([{ contentRect }]) => {
    size = { width: contentRect.width, height: contentRect.height };
    for (const avatar of avatars.values()) glide.jump(avatar, avatar.place);
  }).observe(plane);

  const steering = createSteering(box, plane, {
    at: () => own?.place ?? null,
    size: () => size,
    go(place) {
      own.place = actions.moveTo(place) ?? own.place;
      glide.jump(own, own.place);
    },
  });

  // Nothing says that somebody has fallen silent.
  setInterval(() => current?.room.counted && render(current), 1_000);

  const placeOf = ({ room, user, place }, id) => (id === user && place) || room.places.get(id);

  function add(session, user) {
    const mark = el('span', { className: 'mark' });
    const name = el('span', { className: 'name' });
    const node = el('div', { className: 'avatar' }, mark, name);
    node.dataset.user = user.id;
    const avatar = { node, mark, name, place: placeOf(session, user.id), heardAt: -Infinity, spacing: SPACING_MS };
    avatars.set(user.id, avatar);
    glide.jump(avatar, avatar.place);
    plane.append(node);
    return avatar;
  }

  function remove(id, avatar) {
    const { node } = avatar;
    glide.drop(avatar);
    avatars.delete(id);
    delete node.dataset.user;
    node.classList.add('gone');
    setTimeout(() => node.remove(), FADE_MS);
  }

  function paint(avatar, user, isOwn) {
    const away = user.status === 'away';
    const madeOf = [user.name, user.presence?.colour, away, isOwn].join('\n');
    if (avatar.madeOf === madeOf) return;
    avatar.madeOf = madeOf;
    paintMark(avatar.mark, user);
    setText(avatar.name, isOwn ? 'You' : user.name || user.id);
    avatar.node.classList.toggle('own', isOwn);
    avatar.node.classList.toggle('away', away);
  }

  function go(session, avatar, id) {
    const place = placeOf(session, id);
    if (samePlace(place, avatar.place)) return;
    avatar.place = { x: place.x, y: place.y };
    if (id === session.user) return glide.jump(avatar, avatar.place);
    return glide.to(avatar, avatar.place, bounded(avatar.spacing * SLACK, SHORTEST_MS, longest(session.room)));
  }

  function render(session) {
    current = session;
    const users = shown(session);
    const ids = new Set(users.map((user) => user.id));
    for (const [id, avatar] of avatars) if (!ids.has(id)) remove(id, avatar);
    for (const user of users) {
      const avatar = avatars.get(user.id) ?? add(session, user);
      paint(avatar, user, user.id === session.user);
      go(session, avatar, user.id);
    }
    own = avatars.get(session.user) ?? null;
    const live = session.phase.name === 'open';
    box.classList.toggle('stale', !live);
    byId('map-stale').hidden = live || users.length === 0;
  }

  return {
    render,
    /** These users have moved. */
    moved(session, ids) {
      const now = performance.now();
      for (const id of ids) {
        const avatar = avatars.get(id);
        // One that is not shown yet is drawn with the rest. A place may be told twice, and that is no move.
        if (!avatar || samePlace(placeOf(session, id), avatar.place)) continue;
        const gap = now - avatar.heardAt;
        avatar.heardAt = now;
        // A pause is no rhythm.
        if (gap < 2 * longest(session.room)) avatar.spacing += (gap - avatar.spacing) * 0.3;
        go(session, avatar, id);
      }
    },
    clear() {
      current = null;
      own = null;
      steering.release();
      for (const avatar of avatars.values()) glide.drop(avatar);
      avatars.clear();
      plane.replaceChildren();
    },
  };
}
