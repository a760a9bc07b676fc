// A value that changes often and is told less often: the newest one goes out, and the last one always.

export class Pace {
  #everyMs;
  #send;
  #value;
  #waits = false;
  #next = 0;
  #timer = 0;

  /** `send(value)` says whether the value went out. One that did not is kept until `set` or `flush`. */
  constructor(everyMs, send) {
    this.#everyMs = everyMs;
    this.#send = send;
  }

  /** Whether there is a value that has not gone out. */
  get waits() {
    return this.#waits;
  }

  set(value) {
    this.#value = value;
    this.#waits = true;
    this.flush();
  }

  flush() {
    if (!this.#waits || this.#timer) return;
    const now = performance.now();
    if (now < this.#next) {
      this.#timer = setTimeout(() => {
        this.#timer = 0;
        this.flush();
      }, this.#next - now);
      return;
    }
    if (!this.#send(this.#value)) return;
    this.#waits = false;
    this.#next = now + this.#everyMs;
  }

  /** Nothing goes out for so long. */
  pause(ms) {
    this.#next = Math.max(this.#next, performance.now() + ms);
  }

  drop() {
    this.#waits = false;
    clearTimeout(this.#timer);
    this.#timer = 0;
  }
}
