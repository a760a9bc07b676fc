// What a close code asks of the client. The range decides, so that a code made later is understood too.

const SHORTEST_MS = 250;
const LONGEST_MS = 30_000;
const OVERLOADED_MS = 5_000;
// A drain spreads its clients over some seconds; a longer delay than this is not one to obey.
const LONGEST_DRAIN_MS = 60_000;

const WHY = {
  1001: 'the gateway went away',
  1002: 'the gateway found a broken frame',
  1003: 'the gateway refused this kind of data',
  1007: 'the gateway found text that is not UTF-8',
  1008: 'the gateway refused this connection',
  1009: 'a frame was too big',
  1011: 'the gateway had a fault',
  1012: 'the gateway is being restarted',
  1013: 'the gateway is overloaded',
  4000: 'the gateway did not understand this page',
  4002: 'the gateway wants a valid token',
  4003: 'the operator blocked this user',
  4005: 'too many connections',
  4100: 'the token has expired',
  4101: 'the token was revoked',
  4200: 'this page read too slowly',
  4201: 'no sign of life',
};

/** Whether the token that was used is of no use any more. */
export const asksForToken = (code) => code === 4002 || (code >= 4100 && code <= 4199);

/** Full jitter: anywhere up to a ceiling that doubles, so that clients lost together do not return together. */
export function backoff(attempt, random = Math.random) {
  const ceiling = Math.min(LONGEST_MS, SHORTEST_MS * 2 ** Math.min(attempt, 20));
  return Math.round(random() * ceiling);
}

/**
 * What to do after a close: `{ stop, delayMs, why }`.
 * `attempt` counts the closes since the connection last held for a while.
 */
export function afterClose(code, reason, attempt, random = Math.random) {
  const why = WHY[code] ?? (code >= 4000 ? `close code ${code}` : 'the connection was lost');
  const stop = { stop: true, delayMs: 0, why };
  const wait = (delayMs) => ({ stop: false, delayMs, why });

  if (code === 1000 || [1002, 1003, 1007, 1008, 1009].includes(code)) return stop;
  if (code === 1012 && /^\d{1,9}$/.test(reason)) return wait(Math.min(Number(reason), LONGEST_DRAIN_MS));
  if (code === 1013) return wait(OVERLOADED_MS + backoff(attempt + 4, random));
  if (code >= 4000 && code <= 4099) return stop;
  // A new token comes first here, and only the user has one: the form asks for it.
  if (code >= 4100 && code <= 4199) return stop;
  // At once, but only the first time: a gateway that closes again and again must not be hammered.
  if (code >= 4200 && code <= 4299 && attempt === 0) return wait(0);
  return wait(backoff(attempt, random));
}
