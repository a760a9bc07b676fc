// One stay in one room: joins, joins again after every loss, and turns what the user does into commands.

import { Client, randomId } from './client.js';
import { outText } from './ended.js';
import { Pace } from './pace.js';
import { placeFrom, samePlace } from './places.js';
import { Room } from './room.js';
import { claimsOf, isOver, permissions, subprotocols } from './token.js';

// Error frames without an id that put the user out of the room.
const OUT = new Set(['kicked', 'banned', 'room_closed']);
// A timer's longest, some 24 days.
const LONGEST_TIMER_MS = 2 ** 31 - 1;
const EXPIRED = 4100;
const REJOIN_MS = 1_000;
// The gateway passes moves on as often as this: more would only be overtaken.
const MOVE_MS = 50;
// A gateway that refuses moves is left alone with them for so long.
const REFUSED_MS = 2_000;

export class Session {
  room = new Room();
  /** Messages on their way, by command id: `{ id, body, kind?, ts, seq?, error?, held?, resendsAt? }`. */
  outgoing = new Map();
  welcome = null;
  roundTrip = null;
  lastJoin = '';
  redis = 'ok';
  /** Where this window has put its user on the map; `null` as long as it has not. */
  place = null;
  token;
  /** When the token ends, once the gateway has warned of it. */
  tokenEnds = null;
  /** Why the last join was refused, while it is tried again. */
  joinError = null;
  /** How far the gateway's clock is ahead of this one, ms. */
  #ahead = 0;
  #granted;
  #unmute = 0;
  /** The event before the frame that puts the user out says until when, and why. */
  #ban = {};

  #client;
  #tell;
  #joining = false;
  #rejoin = 0;
  #moves = new Pace(MOVE_MS, (data) => this.#client.tell('move', { room: this.roomId, data }));
  #cursor;

  /**
   * `tell`: `changed(part)` with part `all`, `connection`, `members`, `map`, `chat`, `state`, `token` or `manage`;
   * `moved(ids)`; `event(frame)` for the timeline; `refused(error)`; `out({ text, again?, code? })` when the stay is
   * over, with the label of what leads back in.
   */
  constructor({ url, user, roomId, colour, token = '' }, tell) {
    Object.assign(this, { user, roomId, colour, token });
    this.#granted = permissions('', roomId);
    this.#tell = tell;
    this.#client = new Client(url, {
      onWelcome: (data) => this.#welcomed(data),
      onFrame: (frame) => this.#frame(frame),
      onPhase: (phase) => this.#phase(phase),
      onRoundTrip: (ms) => {
        this.roundTrip = ms;
        tell.changed('connection');
      },
      onHeld: (id, error, until) => this.#held(id, { held: error, resendsAt: until }),
    }, () => (this.token && isOver(this.token) ? EXPIRED : subprotocols(this.token)));
  }

  /** Whether the user has this permission here, as far as can be told; the gateway decides. */
  may(permission) {
    return this.#granted.has(permission);
  }

  /** That the user may not write: `{ until?, reason? }`, `until` by this machine's clock. */
  get muted() {
    return this.muteOf(this.user);
  }

  muteOf(user) {
    const mute = this.room.muted.get(user);
    if (!mute) return null;
    const until = Number.isFinite(mute.until) ? mute.until - this.#ahead : undefined;
    return until <= Date.now() ? null : { ...mute, until };
  }

  get phase() {
    return this.#client.phase;
  }

  open() {
    this.#client.open();
  }

  leave() {
    clearTimeout(this.#rejoin);
    clearTimeout(this.#unmute);
    for (const entry of this.outgoing.values()) clearTimeout(entry.timer);
    this.#moves.drop();
    this.#client.close();
  }

  retryNow() {
    this.#client.retryNow();
  }

  // What the user does.

  /** Sends a message. Give the `id` of one that failed to send that one again: it cannot arrive twice. */
  async say(body, { id = randomId('k'), kind } = {}) {
    clearTimeout(this.outgoing.get(id)?.timer);
    const entry = { id, body, kind, ts: Date.now() };
    this.outgoing.set(id, entry);
    this.#tell.changed('chat');
    try {
      const { message } = await this.#command('message.send', { body, kind }, { durable: true, id });
      // The event brings the message; until it does, the entry stays, so that nothing flickers.
      entry.seq = message?.seq ?? 0;
      entry.resendsAt = undefined;
      this.#dropArrived();
    } catch (error) {
      entry.error = error;
      entry.resendsAt = undefined;
      if (error.code === 'muted') this.#silence(error);
      if (error.code === 'cooldown') this.#resend(entry, error.retryAfterMs ?? REJOIN_MS);
    }
    this.#tell.changed('chat');
  }

  /** In slow mode a message waits for its time by itself. */
  #resend(entry, ms) {
    if (!this.outgoing.has(entry.id) || ms > LONGEST_TIMER_MS) return;
    entry.resendsAt = Date.now() + ms;
    entry.timer = setTimeout(() => this.say(entry.body, entry), ms);
  }

  #held(id, told) {
    const entry = this.outgoing.get(id);
    if (entry) Object.assign(entry, told);
    this.#tell.changed('chat');
  }

  discard(id) {
    clearTimeout(this.outgoing.get(id)?.timer);
    this.outgoing.delete(id);
    this.#tell.changed('chat');
  }

  /** Gives a message another body, unless it is another by now. Gives the error, if there was one. */
  async rewrite({ id, version }, body) {
    try {
      const { message } = await this.#command('message.edit', { messageId: id, body, ifVersion: version }, { durable: true });
      if (message) this.room.addMessages([message]);
      return null;
    } catch (error) {
      if (error.current) this.room.addMessages([error.current]);
      if (error.code === 'muted') this.#silence(error);
      return error;
    } finally {
      this.#tell.changed('chat');
    }
  }

  remove({ id }) {
    return this.#try('message.delete', { messageId: id });
  }

  /** `verb` is kick, mute, unmute or ban. */
  moderate(verb, user, durationMs) {
    return this.#try(`user.${verb}`, { user, durationMs });
  }

  configure(settings) {
    return this.#try('room.configure', settings);
  }

  complete() {
    return this.#try('room.status', { status: 'completed' });
  }

  /** Puts another token in the place of the one that ends. Gives the error, if there was one. */
  async renew(token) {
    try {
      await this.#client.command('auth', { data: { token } });
    } catch (error) {
      return error;
    }
    this.token = token;
    this.tokenEnds = null;
    this.#grant();
    this.#tell.changed('all');
    return null;
  }

  count(by) {
    return this.#try('state.patch', { increment: { counter: by } });
  }

  paint(colour) {
    return this.#try('state.patch', { set: { colour } });
  }

  wear(colour) {
    this.colour = colour;
    return this.#try('presence.update', { set: { colour } });
  }

  /** Goes to a place on the map: here at once, for the others with the next move that goes out. Gives the place. */
  moveTo(place) {
    if (this.muted || !this.may('send')) return this.place;
    this.place = placeFrom(place) ?? this.place;
    if (this.place) this.#moves.set(this.place);
    return this.place;
  }

  /** Asks for older messages until some came or there are no more. */
  async loadOlder() {
    try {
      let before = this.#cursor;
      let added = 0;
      do {
        // The picture has no cursor: the first page is asked without one and may hold nothing new.
        const page = await this.#command('message.history', before ? { before } : {});
        const had = this.room.messages.size;
        this.room.addMessages(page.messages ?? []);
        added = this.room.messages.size - had;
        before = page.before;
      } while (!added && before);
      this.#cursor = before;
      this.room.older = Boolean(before);
    } catch (error) {
      this.#tell.refused(error);
    }
    this.#tell.changed('chat');
  }

  #command(type, data, options) {
    return this.#client.command(type, { room: this.roomId, data, ...options });
  }

  /** Whether it was done. */
  async #try(type, data) {
    try {
      await this.#command(type, data, { durable: true });
      return true;
    } catch (error) {
      if (error.code === 'muted') this.#silence(error);
      // What was under way when the user left needs no word.
      if (error.code !== 'stopped') this.#tell.refused(error);
      return false;
    }
  }

  /** A refusal is the first that one hears of a mute from before one came. */
  #silence({ until }) {
    if (!this.muted) this.room.muted.set(this.user, { until });
    this.#muteChanged();
  }

  /** A mute that ends by itself makes no event. */
  #muteChanged() {
    clearTimeout(this.#unmute);
    const changed = () => ['chat', 'members'].forEach((part) => this.#tell.changed(part));
    const ends = [...this.room.muted.keys()].map((id) => this.muteOf(id)?.until).filter(Number.isFinite);
    if (ends.length > 0) this.#unmute = setTimeout(() => this.#muteChanged(), Math.min(LONGEST_TIMER_MS, Math.max(0, Math.min(...ends) - Date.now())));
    changed();
  }

  /** A gateway without tokens does not look at the one it was given, and the user is another then. */
  #grant() {
    const inForce = this.token && claimsOf(this.token)?.sub === this.user;
    this.#granted = permissions(inForce ? this.token : '', this.roomId);
  }

  // What the gateway says.

  #phase(phase) {
    if (phase.name === 'waiting') this.#note('disconnected', { why: phase.why });
    // Browsers do not tell a refused handshake from a gateway that is not there.
    if (phase.name === 'waiting' && this.token && !this.welcome) {
      this.leave();
      this.#tell.out({ text: 'The gateway did not let this page in. Perhaps it does not accept the token.', code: 4002 });
      return;
    }
    if (phase.name === 'stopped') this.#tell.out({ text: `Disconnected: ${phase.why}.`, code: phase.code });
    this.#tell.changed('connection');
    // Without a connection these show what was, and say so.
    this.#tell.changed('members');
  }

  #welcomed(data) {
    this.welcome = data;
    this.user = data.user?.id ?? this.user;
    this.#ahead = (data.serverTime ?? Date.now()) - Date.now();
    this.tokenEnds = null;
    this.#grant();
    this.redis = 'ok';
    this.#note('welcome', { node: data.node, connection: data.connection });
    this.#join();
  }

  /** Joins, or joins again: `since` asks for the events that were missed. */
  async #join() {
    if (this.#joining) return;
    this.#joining = true;
    clearTimeout(this.#rejoin);
    const presence = this.#presence();
    const { epoch, seq } = this.room;
    try {
      const answer = await this.#command('join', { presence, ...(epoch && { since: { epoch, seq } }) });
      if (answer.recovered) this.room.epoch = answer.epoch;
      else this.#replace(answer);
      this.lastJoin = answer.recovered ? `recovered, ${answer.missed} missed` : `fresh (${answer.reason ?? 'new'})`;
      this.#note('join', { recovered: answer.recovered, reason: answer.reason, missed: answer.missed, seq: answer.seq });
      this.joinError = null;
      this.#client.ready();
      this.#wearNode(answer.you?.presence, presence);
      this.#settlePlace(answer.you);
      this.#tell.changed('all');
    } catch (error) {
      this.#joinFailed(error);
    } finally {
      this.#joining = false;
    }
  }

  /** What this window says of its user. */
  #presence() {
    return { node: this.welcome.node, colour: this.colour };
  }

  /** After a move to another gateway the others see the new node, whether or not the join took the presence. */
  #wearNode(has, wanted) {
    if (!this.may('send')) return;
    if (has?.node !== wanted.node || has?.colour !== wanted.colour) this.#try('presence.update', { set: wanted });
  }

  /** Where the room has another place of this user than the window shows, the one that is newer is made the other. */
  #settlePlace(you) {
    if (you) this.room.places.told(you);
    if (!this.place) return;
    if (samePlace(this.place, placeFrom(you?.position))) this.#moves.drop();
    // A move may have been lost with the connection. But another window of the user may have moved since.
    else if (this.#moves.waits || !(you?.connections > 1)) this.#moves.set(this.place);
    else this.place = null;
  }

  #joinFailed(error) {
    // Lost while joining: the next welcome joins.
    if (error.code === 'disconnected' || error.code === 'stopped') return;
    if (!error.retryable || OUT.has(error.code)) return this.#end(error);
    this.joinError = error;
    if (this.room.epoch) this.#tell.refused(error);
    this.#tell.changed('chat');
    this.#rejoin = setTimeout(() => this.#join(), error.retryAfterMs ?? REJOIN_MS);
  }

  #end(error) {
    this.leave();
    const { code, message } = error;
    const { until, reason } = { ...(code === 'banned' && this.#ban), ...(error.until && { until: error.until }) };
    this.#tell.out(outText({ code, message, until: Number.isFinite(until) ? until - this.#ahead : undefined, reason }));
  }

  #replace(picture) {
    this.room.replace(picture);
    this.#cursor = undefined;
    // What was acknowledged is in the picture, or was lost with the old epoch; either way it is not on its way.
    for (const [id, entry] of this.outgoing) if (entry.seq !== undefined) this.outgoing.delete(id);
  }

  #dropArrived() {
    for (const [id, entry] of this.outgoing) if (entry.seq <= this.room.seq) this.outgoing.delete(id);
  }

  #frame(frame) {
    if (frame.room !== undefined && frame.room !== this.roomId) return;
    // Many times a second: nothing for the timeline, and only those who moved are drawn.
    if (frame.type === 'moves') return this.#tell.moved(this.room.places.heard(frame.data));
    this.#tell.event(frame);

    switch (frame.type) {
      case 'error':
        return this.#error(frame.data ?? {});
      case 'status':
        this.redis = frame.data?.redis ?? 'ok';
        // Redis was started anew and has lost nothing of what is here: the room has another name for the same past.
        if (frame.data?.epoch) this.room.epoch = frame.data.epoch;
        return this.#tell.changed('connection');
      case 'token.expiring':
        this.tokenEnds = (frame.data?.expiresAt ?? Date.now()) - this.#ahead;
        return this.#tell.changed('token');
      case 'resync':
        this.#replace(frame.data ?? {});
        this.lastJoin = 'resync';
        // A room that was lost knows nothing of us but that we are in.
        this.#wearNode(frame.data?.you?.presence, this.#presence());
        this.#settlePlace(frame.data?.you);
        return this.#tell.changed('all');
      default:
        return this.#event(frame);
    }
  }

  #error(data) {
    const shutOut = data.code === 'forbidden' && !this.may('join');
    if (OUT.has(data.code) || shutOut) return this.#end(data);
    // Of what this page sends only moves have no id, and so may be what this answers.
    this.#moves.pause(data.retryAfterMs ?? REFUSED_MS);
    if (data.code === 'muted') return this.#silence(data);
    return this.#tell.refused(data);
  }

  #event(frame) {
    // While a join is under way its answer repeats what seems to be missing now.
    if (this.room.apply(frame) === 'gap' && !this.#joining) return this.#join();
    this.#dropArrived();
    const part = { presence: 'members', occupancy: 'members', 'state.patched': 'state' }[frame.type];
    if (part) this.#tell.changed(part);
    else if (frame.type.startsWith('message.')) this.#tell.changed('chat');
    else if (frame.type === 'room.configured') this.#tell.changed('all');
    else if (frame.type === 'user.muted' || frame.type === 'user.unmuted') this.#muteChanged();
    else if (frame.type === 'user.banned' && frame.data?.user === this.user) this.#ban = frame.data;
    else if (frame.type === 'room.status' && frame.data?.status === 'completed') return this.#end({ code: 'room_closed' });
    return this.#tell.changed('connection');
  }

  /** An entry of the timeline that is not an event of the room. */
  #note(type, data) {
    this.#tell.event({ type, ts: Date.now(), data });
  }
}
