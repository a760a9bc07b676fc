// The last events as they came, for whoever wants to see what the gateway says.

import { byId, el, timeWithSeconds } from './dom.js';
import { browser } from './identity.js';

const MOST = 100;
const LONGEST = 200;
// How many of those whom an event concerns are named: when a gateway dies it may be hundreds.
const NAMED = 5;

function names(people) {
  const more = people.length - NAMED;
  return more > 1 ? `${people.slice(0, NAMED).join(', ')} and ${more} more` : people.join(', ');
}

/** What a presence event says, in words: records and ids are long, and names are what one looks for. */
function presenceText({ all = false, joined = [], updated = [], away = [], back = [], left = [] }, nameOf) {
  const said = [];
  const say = (people, what) => people.length > 0 && said.push(`${names(people)} ${what}`);
  const named = (user) => user.name || user.id;
  if (all) said.push(`${joined.length} here, told anew`);
  else say(joined.map(named), 'joined');
  say(updated.map(named), 'updated');
  say(away.map(nameOf), 'away');
  say(back.map(nameOf), 'back');
  const gone = (...reasons) => left.filter(({ reason = 'left' }) => reasons.includes(reason)).map(({ user }) => nameOf(user));
  say(gone('left'), 'left');
  say(gone('timeout'), 'did not come back');
  for (const { user, reason = 'left' } of left) if (!['left', 'timeout'].includes(reason)) say([nameOf(user)], `out (${reason})`);
  return said.join('; ');
}

function summary({ type, data }, nameOf) {
  const text = type === 'presence' && data ? presenceText(data, nameOf) : JSON.stringify(data) ?? '';
  return text.length > LONGEST ? `${text.slice(0, LONGEST)} …` : text;
}

function eventRow({ at, type, seq, by, text }) {
  return el('li', {},
    el('time', {}, timeWithSeconds(at)),
    el('span', { className: 'seq' }, seq === undefined ? '' : `#${seq}`),
    el('span', { className: 'type' }, type),
    el('span', { className: 'detail' }, by ? `${by}: ${text}` : text));
}

export function createTimeline() {
  const box = byId('timeline');
  const list = byId('timeline-list');
  const pause = byId('timeline-pause');
  let events = [];
  let paused = false;

  const remembered = browser.get('timeline');
  box.open = remembered ? remembered === 'open' : matchMedia('(min-width: 700px)').matches;
  box.addEventListener('toggle', () => {
    browser.set('timeline', box.open ? 'open' : 'closed');
    draw();
  });
  pause.addEventListener('click', () => {
    paused = !paused;
    pause.setAttribute('aria-pressed', String(paused));
    pause.textContent = paused ? 'Go on' : 'Pause';
    draw();
  });

  /** Newest first. Paused, the list stands still while events are still kept. */
  function draw() {
    if (!box.open || paused) return;
    list.replaceChildren(...events.map(eventRow).reverse());
  }

  return {
    add(frame, nameOf) {
      const { type, seq, by, ts } = frame;
      // The text is made now: data may be large, and a hundred large bodies need not be kept.
      events.push({ at: ts ?? Date.now(), type, seq, by: by && nameOf(by), text: summary(frame, nameOf) });
      events = events.slice(-MOST);
    },
    render: draw,
    clear() {
      events = [];
      list.replaceChildren();
    },
  };
}
