// What this page knows of its room: a picture from the join, and every event since, in the order of `seq`.

import { Places } from './places.js';

// How many messages a join brings when it does not say.
const PAGE = 50;

export class Room {
  epoch = null;
  seq = 0;
  version = 0;
  state = {};
  users = new Map();
  members = 0;
  counted = false;
  status = '';
  config = {};
  /** Who may not write, as far as was told: by user id `{ until?, reason? }`, `until` in the gateway's Unix ms. */
  muted = new Map();
  messages = new Map();
  older = false;
  places = new Places();
  // Everybody who was ever told of, for a message carries its author's id only.
  #known = new Map();
  #deleted = new Set();

  /** The whole picture, from a join that was not recovered or from `resync`. Nothing older survives it. */
  replace(picture) {
    this.epoch = picture.epoch ?? null;
    this.seq = picture.seq ?? 0;
    this.version = picture.version ?? 0;
    this.state = { ...picture.state };
    this.status = picture.room?.status ?? '';
    this.config = picture.room?.config ?? {};
    // A picture does not say; whoever is muted hears it with the next refusal.
    this.muted = new Map();
    this.#replaceUsers(picture.users ?? []);
    if (picture.you) this.#know(picture.you);
    this.members = picture.members ?? this.users.size;
    this.counted = this.users.size === 0 && this.members > 0;
    this.messages = new Map();
    this.#deleted = new Set();
    this.addMessages(picture.messages ?? []);
    // The picture does not say whether there is more; a full page is the hint.
    this.older = (picture.messages?.length ?? 0) >= PAGE;
  }

  /**
   * Takes one event. `'gap'` means that events between are missing: the room must be joined again with `since`.
   * `'old'` is one that is in the picture already. An event of an unknown type only moves `seq`.
   */
  apply(frame) {
    if (Number.isInteger(frame.seq)) {
      if (frame.seq <= this.seq) return 'old';
      if (frame.seq > this.seq + 1) return 'gap';
      this.seq = frame.seq;
    }
    this.#take(frame.type, frame.data ?? {}, frame.ts);
    return 'applied';
  }

  #take(type, data, ts) {
    switch (type) {
      case 'presence':
        return this.#presence(data, ts);
      case 'occupancy':
        this.members = data.members ?? this.members;
        this.counted = true;
        this.users.clear();
        return undefined;
      case 'message.sent':
      case 'message.edited':
        return this.addMessages([data]);
      case 'message.deleted':
        this.#deleted.add(data.messageId);
        this.messages.delete(data.messageId);
        return undefined;
      case 'state.patched':
        this.version = data.version ?? this.version;
        this.state = { ...this.state, ...data.set };
        for (const field of data.remove ?? []) delete this.state[field];
        return undefined;
      case 'room.configured':
        this.config = data.config ?? this.config;
        return undefined;
      case 'user.muted':
        return void this.muted.set(data.user, { until: data.until, reason: data.reason });
      case 'user.unmuted':
        return void this.muted.delete(data.user);
      case 'room.status':
        this.status = data.status ?? this.status;
        return undefined;
      default:
        return undefined;
    }
  }

  #presence({ all = false, joined = [], updated = [], away = [], back = [], left = [] }, ts) {
    if (all) {
      this.#replaceUsers(joined);
      this.counted = false;
    }
    // These carry ids only. Away means that the last connection is gone, and back that one is here again.
    for (const id of away) this.#change(id, { status: 'away', connections: 0, lastSeen: ts });
    for (const id of back) this.#change(id, { status: 'here', connections: 1, lastSeen: ts });
    for (const user of [...joined, ...updated]) this.#keepUser(user);
    for (const { user } of left) {
      this.users.delete(user);
      this.places.forget(user);
    }
    if (!this.counted) this.members = this.users.size;
  }

  #replaceUsers(users) {
    this.users = new Map();
    for (const user of users) this.#keepUser(user);
    // In a room that counts the places are all that is known of its users.
    if (this.users.size > 0) this.places.keep(this.users);
  }

  #keepUser(user) {
    if (typeof user?.id !== 'string') return;
    this.users.set(user.id, { ...this.users.get(user.id), ...user });
    this.#know(user);
  }

  #know(user) {
    this.#known.set(user.id, user);
    this.places.told(user);
  }

  #change(id, fields) {
    const user = this.users.get(id);
    if (user) this.users.set(id, { ...user, ...fields });
  }

  /** A user as last told of, also one who has left since or was never named. */
  person(id) {
    const known = this.users.get(id) ?? this.#known.get(id);
    return { id, name: known?.name || id, presence: known?.presence };
  }

  nameOf(id) {
    return this.person(id).name;
  }

  /** Adds messages from events or history. A page of history may be older than an event that overtook it. */
  addMessages(messages) {
    for (const message of messages) {
      if (typeof message?.id !== 'string' || this.#deleted.has(message.id)) continue;
      const known = this.messages.get(message.id);
      if (!known || (message.version ?? 0) >= (known.version ?? 0)) this.messages.set(message.id, message);
    }
  }

  /** Oldest first. An edit keeps the message's own `seq`, and so its place. */
  inOrder() {
    return [...this.messages.values()].sort((a, b) => (a.seq ?? 0) - (b.seq ?? 0));
  }
}
