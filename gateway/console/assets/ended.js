// How a stay in a room ends, in words, and what leads back in.

import { untilText } from './countdown.js';
import { words } from './notices.js';

/** `{ text, again?, code }`; `until` by this machine's clock. Never by itself: the user says whether to come again. */
export function outText({ code, message, until, reason }) {
  const why = reason ? `: ${reason}` : '';
  switch (code) {
    case 'kicked':
      return { code, text: `You were put out of this room${why}.${Number.isFinite(until) ? ` You may come back after${untilText(until).replace(' until', '')}.` : ''}`, again: 'Join again' };
    case 'banned':
      return { code, text: `You are banned from this room${untilText(until)}${why}.` };
    case 'room_closed':
      return { code, text: 'This room is completed.', again: 'Open again' };
    case 'forbidden':
      return { code, text: 'You may not be in this room: your token does not name it.' };
    default:
      return { code, text: `You are out of the room: ${message || words({ code })} (${code})` };
  }
}
