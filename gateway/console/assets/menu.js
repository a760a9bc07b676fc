// A menu that opens at a button, by mouse, touch or keyboard. One is open at a time.
//
// It hangs in the body: lists that scroll would cut it off, and lists that are made again would take it with them.

import { el } from './dom.js';

const GAP_PX = 4;

let open = null;

/**
 * A button that opens a menu. `key` names it, so that the focus comes back although its row was made again.
 * `choices()` gives `{ title?, items }` at the moment of opening; an item is `{ label, act, danger? }`, or
 * `{ label, title, items }` for a second step, such as "are you sure".
 */
export function menuButton(key, label, choices) {
  const button = el('button', { type: 'button', className: 'menu-button', ariaLabel: label, ariaHasPopup: 'menu', ariaExpanded: 'false' }, '⋯');
  button.dataset.menu = key;
  button.addEventListener('click', () => (open?.key === key ? closeMenu() : openMenu(button, choices())));
  return button;
}

const buttonOf = (key) => document.querySelector(`[data-menu="${CSS.escape(key)}"]`);

export function openMenu(button, choices) {
  closeMenu({ refocus: false });
  const box = el('div', { className: 'menu', role: 'menu', ariaLabel: choices.title ?? button.ariaLabel });
  open = { key: button.dataset.menu, box };
  button.ariaExpanded = 'true';
  document.body.append(box);
  fill(choices);
  place(button);
}

export function closeMenu({ refocus = true } = {}) {
  if (!open) return;
  const { key, box } = open;
  open = null;
  box.remove();
  const button = buttonOf(key);
  if (!button) return;
  button.ariaExpanded = 'false';
  if (refocus) button.focus();
}

/** Puts the focus back on the button of this key; false where it is gone. */
export function focusMenu(key) {
  const button = buttonOf(key);
  button?.focus();
  return Boolean(button);
}

function fill({ title, items }) {
  const rows = items.map(({ label, act, danger = false, ...next }) => {
    const row = el('button', { type: 'button', role: 'menuitem', tabIndex: -1, className: danger ? 'danger' : '' }, label);
    row.addEventListener('click', () => {
      if (next.items) return fill(next);
      closeMenu();
      return act?.();
    });
    return row;
  });
  open.box.replaceChildren(...(title ? [el('p', { className: 'muted' }, title)] : []), ...rows);
  open.box.ariaLabel = title ?? open.box.ariaLabel;
  const button = buttonOf(open.key);
  if (button) place(button);
  rows[0]?.focus();
}

/** Below the button, or above where there is no room, and never beyond the edge of the window. */
function place(button) {
  const at = button.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = open.box;
  const below = at.bottom + GAP_PX;
  const top = below + height > innerHeight ? Math.max(GAP_PX, at.top - GAP_PX - height) : below;
  open.box.style.top = `${top}px`;
  open.box.style.left = `${Math.max(GAP_PX, Math.min(at.right - width, innerWidth - width - GAP_PX))}px`;
}

function step(by) {
  const rows = [...open.box.querySelectorAll('button')];
  const at = rows.indexOf(document.activeElement);
  rows[(at + by + rows.length) % rows.length]?.focus();
}

// Before anybody else: with a menu open, Esc closes it and does not leave the room.
addEventListener('keydown', (event) => {
  if (!open) return;
  const act = {
    Escape: () => closeMenu(),
    Tab: () => closeMenu(),
    ArrowDown: () => step(1),
    ArrowUp: () => step(-1),
  }[event.key];
  if (!act) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  act();
}, { capture: true });
addEventListener('pointerdown', ({ target }) => {
  if (open && !open.box.contains(target) && target.closest('[data-menu]')?.dataset.menu !== open.key) closeMenu({ refocus: false });
});
// What it belongs to has moved away.
addEventListener('resize', () => closeMenu({ refocus: false }));
