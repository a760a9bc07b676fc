// The last events as they came, for whoever wants to see what the gateway says.

import { byId, el, timeWithSeconds } from './dom.js';
import { browser } from './identity.js';

const MOST = 100;
const LONGEST = 200;

function summary(data) {
  const text = JSON.stringify(data) ?? '';
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
      const { type, seq, by, ts, data } = frame;
      // The text is made now: data may be large, and a hundred large bodies need not be kept.
      events.push({ at: ts ?? Date.now(), type, seq, by: by && nameOf(by), text: summary(data) });
      events = events.slice(-MOST);
    },
    render: draw,
    clear() {
      events = [];
      list.replaceChildren();
    },
  };
}
