// The page: the form, one session, and the views that show it.

import { createChat } from './chat.js';
import { asksForToken } from './closing.js';
import { colourOf, isColour } from './colours.js';
import { createConnection } from './connection.js';
import { byId, setText } from './dom.js';
import { createForm } from './form.js';
import { roomLink, socketUrl, tab, userId } from './identity.js';
import { createManage } from './manage.js';
import { createMap } from './map.js';
import { createMembers } from './members.js';
import { closeMenu } from './menu.js';
import { showError, showNote } from './notices.js';
import { createRenewal } from './renewal.js';
import { Session } from './session.js';
import { createShared } from './shared.js';
import { createTimeline } from './timeline.js';
import { claimsOf } from './token.js';

let session = null;

const actions = {
  say: (body, options) => session?.say(body, options),
  rewrite: (message, body) => session?.rewrite(message, body),
  remove: (message) => session?.remove(message),
  moderate: (verb, user, durationMs) => session?.moderate(verb, user, durationMs),
  configure: (settings) => session?.configure(settings),
  complete: () => session?.complete(),
  renew: (token) => session?.renew(token),
  discard: (id) => session?.discard(id),
  loadOlder: () => session?.loadOlder(),
  count: (by) => session?.count(by),
  paint: (colour) => session?.paint(colour),
  moveTo: (place) => session?.moveTo(place),
  retryNow: () => session?.retryNow(),
  wear(colour) {
    tab.set('colour', colour);
    return session?.wear(colour);
  },
};

const form = createForm(join);
const timeline = createTimeline();
const views = {
  connection: createConnection(actions),
  members: createMembers(actions),
  map: createMap(actions),
  chat: createChat(actions),
  state: createShared(actions),
  manage: createManage(actions),
  token: createRenewal(actions, (token) => form.keepToken(token)),
  timeline,
};

// Events may come far faster than the screen is drawn: what changed is gathered and shown once a frame.
const dirty = new Set();

function changed(part) {
  if (dirty.size === 0) requestAnimationFrame(draw);
  if (part === 'all') for (const name of Object.keys(views)) dirty.add(name);
  else dirty.add(part);
  // Names and colours of members stand in the chat and on the map too.
  if (part === 'members') dirty.add('chat').add('map');
}

function draw() {
  const parts = [...dirty];
  dirty.clear();
  if (!session) return;
  nameRoom(session);
  for (const part of parts) views[part].render(session);
}

function nameRoom({ roomId, room }) {
  const name = room.config.name || roomId;
  document.title = `${name} – Roomgate`;
  setText(byId('room-name'), name);
  byId('room-name').title = roomId;
}

function join({ name, room, token }) {
  const user = claimsOf(token)?.sub ?? userId();
  const kept = tab.get('colour');
  const current = new Session({ url: socketUrl(user, name), user, roomId: room, colour: isColour(kept) ? kept : colourOf(user), token }, {
    changed: (part) => session === current && changed(part),
    moved(ids) {
      if (session !== current) return;
      views.map.moved(current, ids);
      // Whoever moves in a room that only counts may be one not seen before.
      if (current.room.counted) changed('map');
    },
    event(frame) {
      timeline.add(frame, (id) => current.room.nameOf(id));
      if (session === current) changed('timeline');
    },
    refused: showError,
    out: (why) => session === current && end(why),
  });
  session = current;

  tab.set('room', room);
  // The address is the link for others; the tab itself remembers the name.
  history.replaceState(null, '', roomLink(room));
  nameRoom(current);
  form.say('');
  views.chat.clear();
  views.map.clear();
  timeline.clear();
  byId('start').hidden = true;
  byId('room').hidden = false;
  changed('all');
  session.open();
  // On a phone the keyboard would cover half of what there is to see.
  if (matchMedia('(pointer: fine)').matches) views.chat.focus();
  else byId('room-name').focus();
}

/** `why`: `{ text, again?, code? }`, see `Session`. */
function end(why) {
  closeMenu({ refocus: false });
  const ended = session;
  session = null;
  ended?.leave();
  tab.set('room', '');
  document.title = 'Roomgate';
  document.documentElement.style.removeProperty('--room-colour');
  byId('room').hidden = true;
  byId('start').hidden = false;
  form.focus();
  form.say(why.text, why.again);
  if (asksForToken(why.code)) form.askForToken();
}

async function share() {
  const link = roomLink(session.roomId);
  try {
    await navigator.clipboard.writeText(link);
    showNote('Link copied.');
  } catch {
    // Browsers give the clipboard to https and localhost only.
    showNote(`The link: ${link}`);
  }
}

byId('share').addEventListener('click', share);
byId('leave').addEventListener('click', () => end({ text: '' }));
addEventListener('keydown', (event) => {
  // In a colour field Esc closes the browser's own chooser.
  if (event.key !== 'Escape' || event.isComposing || event.target.type === 'color') return;
  if (session) end({ text: '' });
});

// `?room=…&name=…` joins at once; so does the reload of a tab that was in that room. Otherwise the form asks.
const link = new URLSearchParams(location.search);
const given = { room: link.get('room') ?? undefined, name: link.get('name') ?? undefined };
const reloaded = Boolean(tab.get('room')) && (given.room ?? tab.get('room')) === tab.get('room') && Boolean(tab.get('name'));
form.fill(given, (given.room && given.name) || reloaded);
