// Times that run down. Hidden from screen readers, which would read every second aloud.

import { el, setText, timeText } from './dom.js';

const STEP_MS = 250;

function left(until) {
  const seconds = Math.max(0, Math.ceil((until - Date.now()) / 1000));
  if (seconds < 120) return `${seconds} s`;
  return seconds < 7200 ? `${Math.ceil(seconds / 60)} min` : `${Math.ceil(seconds / 3600)} h`;
}

/** `in 12 s`, counting down to `until` (this machine's clock, ms) for as long as it stands in the page. */
export function countdown(until) {
  const node = el('span', { className: 'countdown', ariaHidden: 'true' }, `in ${left(until)}`);
  node.dataset.until = until;
  return node;
}

setInterval(() => {
  for (const node of document.querySelectorAll('.countdown')) setText(node, `in ${left(Number(node.dataset.until))}`);
}, STEP_MS);

/** ` until 12:30`, or nothing where it has no end. */
export const untilText = (until) => (Number.isFinite(until) ? ` until ${timeText(until)}` : '');
