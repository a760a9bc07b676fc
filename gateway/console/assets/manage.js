// For whoever may manage the room: its settings, and its end.

import { byId } from './dom.js';
import { openMenu } from './menu.js';

export function createManage(actions) {
  const box = byId('manage');
  const form = byId('manage-form');
  const name = byId('manage-name');
  const capacity = byId('manage-capacity');
  const slow = byId('manage-slow');
  const images = byId('manage-images');
  let config = {};

  /** Fields as the room has them; nothing for a setting that it does without. */
  function fill() {
    name.value = config.name ?? '';
    capacity.value = config.capacity || '';
    slow.value = (config.cooldownMs?.messages ?? 0) / 1000 || '';
    images.checked = config.images !== false;
  }

  /** The settings of the form that differ from the room's. */
  function changes() {
    const cooldown = { ...config.cooldownMs, messages: Math.round(Number(slow.value) * 1000) };
    const wanted = {
      name: name.value.trim() || null,
      capacity: Number(capacity.value) || null,
      cooldownMs: cooldown,
      images: images.checked,
    };
    const has = {
      name: config.name ?? null,
      capacity: config.capacity || null,
      cooldownMs: { ...config.cooldownMs, messages: config.cooldownMs?.messages ?? 0 },
      images: config.images !== false,
    };
    return Object.fromEntries(Object.entries(wanted).filter(([key, value]) => JSON.stringify(value) !== JSON.stringify(has[key])));
  }

  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const changed = changes();
    if (form.reportValidity() && Object.keys(changed).length > 0) actions.configure(changed);
  });
  const complete = byId('manage-complete');
  complete.addEventListener('click', () => openMenu(complete, {
    title: 'Complete this room? Everybody is put out of it.',
    items: [{ label: 'Complete', danger: true, act: () => actions.complete() }, { label: 'Go on' }],
  }));

  return {
    render(session) {
      box.hidden = !session.may('manage');
      if (session.room.config === config) return;
      config = session.room.config;
      // Not under the hands of whoever is changing it.
      if (!form.contains(document.activeElement)) fill();
    },
  };
}
