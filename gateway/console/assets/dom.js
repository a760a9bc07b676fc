// Small helpers for the page. Text from others goes in as text nodes only, never as markup.

export const byId = (id) => document.getElementById(id);

/** `el('li', { className: 'own' }, 'text', child)`; properties, not attributes, so nothing is parsed. */
export function el(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Writes only what changed: live regions speak again otherwise. */
export function setText(node, text) {
  if (node.textContent !== String(text)) node.textContent = text;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const seconds = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
const dayAndClock = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' });

/** The time of day, with the date when that is not today. */
export function timeText(ts) {
  const then = new Date(ts);
  if (Number.isNaN(then.getTime())) return '';
  return (then.toDateString() === new Date().toDateString() ? clock : dayAndClock).format(then);
}

/** The time for eyes and machines, with the full date to point at. */
export function timeNode(ts) {
  const then = new Date(ts);
  if (Number.isNaN(then.getTime())) return el('time');
  return el('time', { dateTime: then.toISOString(), title: then.toLocaleString() }, timeText(ts));
}

export function timeWithSeconds(ts) {
  return Number.isFinite(ts) ? seconds.format(ts) : '';
}

/** Restarts the short highlight of something that changed. */
export function flash(node) {
  node.classList.remove('flash');
  // Reading the layout lets the same animation start a second time.
  void node.offsetWidth;
  node.classList.add('flash');
}

/** Puts the rows in their places and touches none that is there already: it keeps its focus, and a live region speaks what is added. */
export function placeRows(list, rows) {
  let at = list.firstChild;
  for (const row of rows) {
    if (row === at) at = at.nextSibling;
    else list.insertBefore(row, at);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}
