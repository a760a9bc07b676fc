// Where users stand on the map: `{ x, y }`, each from 0 to 1, so that a place is the same on every screen.

// What `moves` has told is newer than a user's record for this long: the store is behind it by up to half a second.
const FRESH_MS = 2_000;
// Nobody says who leaves a room that only counts; who moves there is taken to be there for this long.
const SILENT_MS = 30_000;
const STEPS = 10_000;

const bounded = (part) => Math.round(Math.min(1, Math.max(0, part)) * STEPS) / STEPS;

/** A place out of what some client has sent, or `null`: only finite numbers are one. */
export function placeFrom(position) {
  const { x, y } = position ?? {};
  return Number.isFinite(x) && Number.isFinite(y) ? { x: bounded(x), y: bounded(y) } : null;
}

export const samePlace = (one, other) => one?.x === other?.x && one?.y === other?.y;

/** Where a user stands that has not moved yet: scattered, off the edge, and the same on every screen. */
export function startOf(userId) {
  let hash = 0x811c9dc5;
  for (const char of userId) hash = Math.imul(hash ^ char.codePointAt(0), 0x01000193);
  const part = (salt) => {
    let mixed = Math.imul(hash ^ salt ^ (hash >>> 15), 0x2c1b3c6d);
    mixed = Math.imul(mixed ^ (mixed >>> 12), 0x297a2d39);
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32;
  };
  return { x: bounded(0.08 + 0.84 * part(0)), y: bounded(0.08 + 0.84 * part(0x5bd1e995)) };
}

/** The places of a room's users. Times are those of `performance.now()`. */
export class Places {
  // By user id: `{ x, y, heard }`.
  #known = new Map();

  get(id) {
    return this.#known.get(id) ?? startOf(id);
  }

  /** Takes a `moves` frame, and says whose places it brought. */
  heard(moves, now = performance.now()) {
    const moved = [];
    for (const [id, position] of Object.entries(moves ?? {})) {
      const place = placeFrom(position);
      if (!place) continue;
      this.#known.set(id, { ...place, heard: now });
      moved.push(id);
    }
    return moved;
  }

  /** Takes the place that stands in a user's record. */
  told({ id, position }, now = performance.now()) {
    if (now - (this.#known.get(id)?.heard ?? -Infinity) < FRESH_MS) return;
    const place = placeFrom(position);
    if (place) this.#known.set(id, { ...place, heard: -Infinity });
    else this.#known.delete(id);
  }

  forget(id) {
    this.#known.delete(id);
  }

  /** Forgets all but these. */
  keep(ids) {
    for (const id of this.#known.keys()) if (!ids.has(id)) this.#known.delete(id);
  }

  /** The ids of who has moved of late: all that is known of who is in a counted room. Who has fallen silent is forgotten. */
  recent(now = performance.now()) {
    const ids = [];
    for (const [id, { heard }] of this.#known) {
      if (now - heard <= SILENT_MS) ids.push(id);
      // A place that was told only, one's own above all, says nothing of silence.
      else if (heard > -Infinity) this.#known.delete(id);
    }
    return ids;
  }
}
