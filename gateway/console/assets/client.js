// One WebSocket to any gateway: commands that are promises, and a connection that comes back.
//
// The client knows frames, not rooms. After each `onWelcome` its user joins again and then calls `ready()`;
// durable commands (those the server remembers by id) wait for that, and the unanswered are sent again with
// the id they had. So are those that the server could not carry out now, when it says that they may be.

import { afterClose } from './closing.js';

const ANSWER_MS = 10_000;
const RETRY_MS = 1_000;
// The server remembers command ids for 10 minutes. Giving up well before means that none can happen twice.
const DURABLE_MS = 120_000;
const PING_MS = 5_000;
// A connection that held this long was a good one: the next loss starts the back-off anew.
const SETTLED_MS = 5_000;
const MOST_PENDING = 100;
// Any code but 1000, which would mean "I leave my rooms".
const NO_PONG = 4201;

/** A refused or unanswered command. `code` is the server's, or `no_answer`, `disconnected`, `stopped`, `queue_full`. */
export class CommandError extends Error {
  constructor({ code = 'internal', message = '', retryable = false, retryAfterMs, until } = {}) {
    // In a conflict over a message this is that message as it is now.
    const current = typeof message === 'object' ? message : undefined;
    super(current ? '' : message);
    Object.assign(this, { code, retryable, retryAfterMs, until, current });
  }
}

/** Letters and digits only, so that it is valid as a command id and as a user id. */
export function randomId(prefix) {
  // Not `randomUUID`: browsers have it on https and localhost only.
  const bytes = crypto.getRandomValues(new Uint8Array(10));
  return prefix + Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

export class Client {
  #url;
  #protocols;
  #on;
  #socket = null;
  #ready = false;
  #holding = 0;
  #pending = new Map();
  #attempts = 0;
  #welcomedAt = 0;
  #timer = 0;
  #phase = { name: 'closed' };
  #online = () => this.retryNow();

  /**
   * `on`: `{ onWelcome(data), onFrame(frame), onPhase(phase), onRoundTrip(ms), onHeld?(id, error, until) }`; the last
   * when a command was refused and goes out again by itself. `protocols()` is asked at each connect; where it has
   * nothing to offer any more it gives the close code that says so.
   */
  constructor(url, on, protocols = () => ['roomgate.v1']) {
    this.#url = url;
    this.#protocols = protocols;
    this.#on = on;
  }

  /** `{ name: 'connecting' | 'open' | 'waiting' | 'stopped' | 'closed', until?, why?, code? }` */
  get phase() {
    return this.#phase;
  }

  open() {
    addEventListener('online', this.#online);
    this.#connect();
  }

  /** Leaves for good: close code 1000 takes the user out of its rooms at once. */
  close() {
    this.#end({ name: 'closed' }, 1000);
  }

  retryNow() {
    if (this.#phase.name === 'waiting') this.#connect();
  }

  /** The rooms are joined again: what waited and what was unanswered goes out, in its order. */
  ready() {
    this.#ready = true;
    clearTimeout(this.#holding);
    this.#holding = 0;
    for (const entry of this.#pending.values()) if (entry.durable && !entry.sent) this.#transmit(entry);
  }

  /** Sends a command; resolves with the data of its ack. Give `id` to repeat a command that was not answered. */
  command(type, { room, data, durable = false, id = randomId('k') } = {}) {
    return new Promise((resolve, reject) => {
      const refuse = (code, message) => reject(new CommandError({ code, message, retryable: true }));
      if (['closed', 'stopped'].includes(this.#phase.name)) return refuse('stopped', 'There is no connection.');
      if (this.#pending.size >= MOST_PENDING) return refuse('queue_full', 'Too many commands are waiting.');
      if (!durable && this.#phase.name !== 'open') return refuse('disconnected', 'There is no connection.');

      const entry = { frame: { id, type, room, data }, durable, resolve, reject, deadline: Date.now() + DURABLE_MS };
      this.#pending.set(id, entry);
      if ((this.#ready && !this.#holding) || !durable) this.#transmit(entry);
      else this.#expireIn(entry, DURABLE_MS);
    });
  }

  /** Sends a command that nobody answers. False where that is not possible now: it is not kept for later. */
  tell(type, { room, data }) {
    if (!this.#ready || this.#phase.name !== 'open') return false;
    this.#socket.send(JSON.stringify({ type, room, data }));
    return true;
  }

  #transmit(entry) {
    entry.sent = true;
    this.#expireIn(entry, ANSWER_MS);
    this.#socket.send(JSON.stringify(entry.frame));
  }

  #expireIn(entry, ms) {
    clearTimeout(entry.timer);
    const silent = { code: 'no_answer', message: 'The gateway did not answer in time.', retryable: true };
    entry.timer = setTimeout(() => this.#settle(entry.frame.id, 'reject', new CommandError(silent)), ms);
  }

  /** Whether a refused command goes out again by itself: what is written meanwhile waits behind it. */
  #retries(id, error) {
    const { code, retryable, retryAfterMs = RETRY_MS } = error;
    // Slow mode concerns one kind of command: the others need not wait for it.
    if (code === 'cooldown') return false;
    const entry = this.#pending.get(id);
    // Half as long again at most, so that many do not come at once.
    const wait = retryAfterMs * (1 + Math.random() / 2);
    if (!retryable || !entry?.durable || Date.now() + wait > entry.deadline) return false;
    entry.sent = false;
    this.#expireIn(entry, entry.deadline - Date.now());
    if (this.#ready && !this.#holding) this.#holding = setTimeout(() => this.ready(), wait);
    this.#on.onHeld?.(id, error, Date.now() + wait);
    return true;
  }

  /** False when nothing waits for this id (it was given up, or the frame answers no command). */
  #settle(id, how, value) {
    const entry = this.#pending.get(id);
    if (!entry) return false;
    this.#pending.delete(id);
    clearTimeout(entry.timer);
    entry[how](value);
    return true;
  }

  #connect() {
    clearTimeout(this.#timer);
    const offered = this.#protocols();
    if (typeof offered === 'number') return this.#lost(offered, '');
    const socket = new WebSocket(this.#url, offered);
    this.#socket = socket;
    // A socket that was given up may still speak; only the present one is heard.
    socket.onmessage = ({ data }) => this.#socket === socket && this.#receive(data);
    socket.onclose = ({ code, reason }) => this.#socket === socket && this.#lost(code, reason);
    this.#timer = setTimeout(() => this.#abandon(), ANSWER_MS);
    this.#setPhase({ name: 'connecting' });
  }

  // One frame is one task of the browser, so whoever awaits an ack goes on before the next frame is read.
  #receive(text) {
    let frame;
    try {
      frame = JSON.parse(text);
    } catch {
      return;
    }
    if (frame?.type === 'welcome') return this.#welcome(frame.data ?? {});
    if (frame?.type === 'ack' || frame?.type === 'pong') return this.#settle(frame.id, 'resolve', frame.data ?? {});
    if (frame?.type === 'error' && this.#retries(frame.id, frame.data ?? {})) return;
    if (frame?.type === 'error' && this.#settle(frame.id, 'reject', new CommandError(frame.data))) return;
    if (typeof frame?.type === 'string') this.#on.onFrame(frame);
  }

  #welcome(data) {
    clearTimeout(this.#timer);
    this.#welcomedAt = Date.now();
    this.#setPhase({ name: 'open' });
    this.#beat(this.#socket);
    this.#on.onWelcome(data);
  }

  /** Measures the round trip, and finds a connection that is dead without having said so. */
  async #beat(socket) {
    while (this.#socket === socket) {
      const started = performance.now();
      try {
        await this.command('ping');
        this.#on.onRoundTrip(performance.now() - started);
      } catch (error) {
        if (error.code === 'no_answer' && this.#socket === socket) return this.#abandon();
      }
      await new Promise((resolve) => setTimeout(resolve, PING_MS));
    }
  }

  /** Gives up a silent socket without waiting for its close, which may take minutes on a dead line. */
  #abandon() {
    this.#socket.close(NO_PONG);
    this.#lost(NO_PONG, '');
  }

  #lost(code, reason) {
    clearTimeout(this.#timer);
    this.#socket = null;
    this.#unready();
    if (this.#welcomedAt && Date.now() - this.#welcomedAt >= SETTLED_MS) this.#attempts = 0;
    this.#welcomedAt = 0;

    const { stop, delayMs, why } = afterClose(code, reason, this.#attempts++);
    if (stop) return this.#end({ name: 'stopped', code, why: reason ? `${why} (${reason})` : why });

    const gone = { code: 'disconnected', message: `The connection was lost: ${why}.`, retryable: true };
    for (const [id, entry] of this.#pending) {
      entry.sent = false;
      if (entry.durable) this.#expireIn(entry, entry.deadline - Date.now());
      else this.#settle(id, 'reject', new CommandError(gone));
    }
    this.#timer = setTimeout(() => this.#connect(), delayMs);
    this.#setPhase({ name: 'waiting', until: Date.now() + delayMs, why });
  }

  #end(phase, code) {
    clearTimeout(this.#timer);
    removeEventListener('online', this.#online);
    const socket = this.#socket;
    this.#socket = null;
    this.#unready();
    if (code) socket?.close(code);
    this.#setPhase(phase);
    const error = new CommandError({ code: 'stopped', message: 'The connection was closed.' });
    for (const id of [...this.#pending.keys()]) this.#settle(id, 'reject', error);
  }

  #unready() {
    this.#ready = false;
    clearTimeout(this.#holding);
    this.#holding = 0;
  }

  #setPhase(phase) {
    this.#phase = phase;
    this.#on.onPhase(phase);
  }
}
