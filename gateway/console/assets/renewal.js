// The notice that a token ends soon, and the field for the next one.

import { countdown } from './countdown.js';
import { byId, setText } from './dom.js';
import { showNote, words } from './notices.js';
import { tokenError } from './token.js';

/** `kept(token)` is called when the gateway has taken another one. */
export function createRenewal(actions, kept) {
  const input = byId('token-next');
  const error = byId('token-next-error');
  let shown = null;

  async function renew() {
    const token = input.value.trim();
    const wrong = tokenError(token);
    setText(error, wrong);
    if (wrong) return input.focus();
    const refused = await actions.renew(token);
    setText(error, refused ? words(refused) : '');
    if (refused) return input.focus();
    input.value = '';
    kept(token);
    return showNote('The new token is in use.');
  }

  byId('token-form').addEventListener('submit', (event) => {
    event.preventDefault();
    renew();
  });

  return {
    render({ tokenEnds }) {
      byId('token-banner').hidden = tokenEnds === null;
      if (shown === tokenEnds) return;
      shown = tokenEnds;
      setText(error, '');
      byId('token-left').replaceChildren(...(tokenEnds === null ? [] : [countdown(tokenEnds)]));
    },
  };
}
