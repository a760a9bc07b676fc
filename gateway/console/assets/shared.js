// The shared state of the room: a counter and a colour, the same for all.

import { isColour, PALETTE } from './colours.js';
import { byId, el, flash, setText } from './dom.js';

export function createShared(actions) {
  const counter = byId('counter');
  const colour = byId('colour');
  const shown = byId('colour-shown');
  const own = byId('colour-own');

  byId('counter-up').addEventListener('click', () => actions.count(1));
  byId('counter-down').addEventListener('click', () => actions.count(-1));
  own.addEventListener('change', () => actions.paint(own.value));
  const swatches = PALETTE.map((value) => {
    const swatch = el('button', { type: 'button', className: 'swatch', ariaLabel: `Colour ${value}` });
    swatch.style.backgroundColor = value;
    swatch.addEventListener('click', () => actions.paint(value));
    return swatch;
  });
  byId('colour-swatches').replaceChildren(...swatches);

  /** Shows a value, and draws the eye to it when it is another than before. */
  function put(node, text, lit = node) {
    if (node.textContent === text) return;
    setText(node, text);
    flash(lit);
  }

  return {
    render({ room }) {
      setText(byId('state-version'), room.version);
      const count = room.state.counter ?? 0;
      put(counter, JSON.stringify(count));

      const value = isColour(room.state.colour) ? room.state.colour.toLowerCase() : null;
      put(colour, value ?? 'not set', shown);
      shown.style.backgroundColor = value ?? '';
      if (value && document.activeElement !== own) own.value = value;
      swatches.forEach((swatch, at) => swatch.setAttribute('aria-pressed', String(PALETTE[at] === value)));
      // The line under the header wears the room's colour, so that a change is seen from anywhere on the page.
      document.documentElement.style.setProperty('--room-colour', value ?? '');
    },
  };
}
