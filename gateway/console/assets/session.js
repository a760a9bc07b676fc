// One stay in one room: joins, joins again after every loss, and turns what the user does into commands.

import { Client, randomId } from './client.js';
import { Pace } from './pace.js';
import { placeFrom, samePlace } from './places.js';
import { Room } from './room.js';

// Error frames without an id that put the user out of the room.
const OUT = new Set(['kicked', 'banned', 'room_closed']);
const REJOIN_MS = 1_000;
// The gateway passes moves on as often as this: more would only be overtaken.
const MOVE_MS = 50;
// A gateway that refuses moves is left alone with them for so long.
const REFUSED_MS = 2_000;

export class Session {
  room = new Room();
  /** Messages on their way, by command id: `{ id, body, ts, seq?, error? }`. */
  outgoing = new Map();
  welcome = null;
  roundTrip = null;
  lastJoin = '';
  redis = 'ok';
  /** Where this window has put its user on the map; `null` as long as it has not. */
  place = null;

  #client;
  #tell;
  #joining = false;
  #rejoin = 0;
  #moves = new Pace(MOVE_MS, (data) => this.#client.tell('move', { room: this.roomId, data }));
  #cursor;

  /**
   * `tell`: `changed(part)` with part `all`, `connection`, `members`, `map`, `chat` or `state`; `moved(ids)`;
   * `event(frame)` for the timeline; `refused(error)`; `out(why)` when the stay is over.
   */
  constructor({ url, user, roomId, colour }, tell) {
    Object.assign(this, { user, roomId, colour });
    this.#tell = tell;
    this.#client = new Client(url, {
      onWelcome: (data) => this.#welcomed(data),
      onFrame: (frame) => this.#frame(frame),
      onPhase: (phase) => this.#phase(phase),
      onRoundTrip: (ms) => {
        this.roundTrip = ms;
        tell.changed('connection');
      },
    });
  }

  get phase() {
    return this.#client.phase;
  }

  open() {
    this.#client.open();
  }

  leave() {
    clearTimeout(this.#rejoin);
    this.#moves.drop();
    this.#client.close();
  }

  retryNow() {
    this.#client.retryNow();
  }

  // What the user does.

  /** Sends a message. Give the `id` of one that failed to send that one again: it cannot arrive twice. */
  async say(body, id = randomId('k')) {
    const entry = { id, body, ts: Date.now() };
    this.outgoing.set(id, entry);
    this.#tell.changed('chat');
    try {
      const { message } = await this.#command('message.send', { body }, { durable: true, id });
      // The event brings the message; until it does, the entry stays, so that nothing flickers.
      entry.seq = message?.seq ?? 0;
      this.#dropArrived();
    } catch (error) {
      entry.error = error;
    }
    this.#tell.changed('chat');
  }

  discard(id) {
    this.outgoing.delete(id);
    this.#tell.changed('chat');
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

  async #try(type, data) {
    try {
      await this.#command(type, data, { durable: true });
    } catch (error) {
      // What was under way when the user left needs no word.
      if (error.code !== 'stopped') this.#tell.refused(error);
    }
  }

  // What the gateway says.

  #phase(phase) {
    if (phase.name === 'waiting') this.#note('disconnected', { why: phase.why });
    if (phase.name === 'stopped') this.#tell.out(`Disconnected: ${phase.why}.`);
    this.#tell.changed('connection');
    // Without a connection these show what was, and say so.
    this.#tell.changed('members');
  }

  #welcomed(data) {
    this.welcome = data;
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
    this.#tell.refused(error);
    this.#rejoin = setTimeout(() => this.#join(), error.retryAfterMs ?? REJOIN_MS);
  }

  #end(error) {
    this.leave();
    this.#tell.out(`You are out of the room: ${error.message || error.code} (${error.code})`);
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
    if (OUT.has(data.code)) return this.#end(data);
    // Of what this page sends only moves have no id, and so may be what this answers.
    this.#moves.pause(data.retryAfterMs ?? REFUSED_MS);
    return this.#tell.refused(data);
  }

  #event(frame) {
    // While a join is under way its answer repeats what seems to be missing now.
    if (this.room.apply(frame) === 'gap' && !this.#joining) return this.#join();
    this.#dropArrived();
    const part = { presence: 'members', occupancy: 'members', 'state.patched': 'state' }[frame.type];
    if (part) this.#tell.changed(part);
    else if (frame.type.startsWith('message.')) this.#tell.changed('chat');
    return this.#tell.changed('connection');
  }

  /** An entry of the timeline that is not an event of the room. */
  #note(type, data) {
    this.#tell.event({ type, ts: Date.now(), data });
  }
}
