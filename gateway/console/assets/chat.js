// The chat: history, what is on its way, and the line to write on.

import { createComposer } from './composer.js';
import { byId, placeRows, setText } from './dom.js';
import { focusMenu } from './menu.js';
import { messageRow, outgoingRow } from './messages.js';
import { words } from './notices.js';

// Messages of one author within this time stand together under one name.
const TOGETHER_MS = 5 * 60_000;
const AT_END_PX = 40;

/** What stands where there are no messages. */
function emptyText({ room, joinError }) {
  if (room.epoch) return 'No messages yet. Say something.';
  return joinError ? `${words(joinError)} Trying again …` : 'Joining …';
}

export function createChat(actions) {
  const scroll = byId('chat-scroll');
  const list = byId('chat-list');
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

  const composer = createComposer(actions, toEnd);
  const ofRows = { ...actions, edit: composer.edit, remove };

  /** The row goes with its event; the focus goes to where one writes. */
  async function remove(message) {
    if (await actions.remove(message)) composer.focus();
  }

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
      const own = message.by === session.user;
      const changes = own ? session.may('send') : session.may('moderate');
      const madeOf = [message.version, follows, changes, author.name, author.presence?.colour].join('\n');
      const known = rows.get(message.id);
      const row = known?.madeOf === madeOf ? known.row : messageRow(message, author, { own, follows, changes, actions: ofRows });
      made.set(message.id, { row, madeOf });
      previous = message;
    }
    return made;
  }

  function place() {
    const focused = list.contains(document.activeElement) ? document.activeElement.dataset.menu : undefined;
    placeRows(list, [...rows.values()].map(({ row }) => row));
    // Its row was made again, or is gone.
    if (focused && document.activeElement?.dataset.menu !== focused && !focusMenu(focused)) composer.focus();
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
      setText(byId('chat-empty'), emptyText(session));
      composer.render(session);

      if (following) toEnd();
      // Older ones came above: what was being read stays where it is.
      else if (first !== list.firstChild) scroll.scrollTop = scroll.scrollHeight - bottom;
      else if (last !== list.lastChild) latest.hidden = false;
      requestAnimationFrame(() => scroll.setAttribute('aria-busy', 'false'));
    },
    focus: composer.focus,
    clear() {
      rows = new Map();
      list.replaceChildren();
      composer.clear();
      toEnd();
    },
  };
}
