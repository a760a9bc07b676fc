// The connection as the user sees it: its phase, the node, the place in the room's order, the round trip.

import { byId, setText } from './dom.js';

function phaseText({ phase, welcome }) {
  switch (phase.name) {
    case 'open':
      return `Connected to ${welcome?.node ?? 'the gateway'}`;
    case 'waiting':
    case 'stopped':
      return `Disconnected: ${phase.why}.`;
    default:
      return 'Connecting …';
  }
}

export function createConnection(actions) {
  let current = null;
  byId('phase-retry').addEventListener('click', () => actions.retryNow());
  setInterval(countDown, 250);

  // Apart from the text: a live region would read every second aloud.
  function countDown() {
    const waiting = current?.phase.name === 'waiting';
    const left = waiting ? Math.max(0, current.phase.until - Date.now()) : 0;
    setText(byId('phase-countdown'), waiting ? `Reconnecting in ${Math.ceil(left / 1000)} s` : '');
  }

  return {
    render(session) {
      current = session;
      const { phase, room, welcome, roundTrip } = session;
      byId('phase').dataset.phase = phase.name;
      setText(byId('phase-text'), phaseText(session));
      byId('phase-retry').hidden = phase.name !== 'waiting';
      countDown();
      byId('redis-banner').hidden = session.redis !== 'down';

      setText(byId('link-node'), welcome?.node ?? '–');
      setText(byId('link-trip'), roundTrip === null ? '–' : `${roundTrip.toFixed(roundTrip < 10 ? 1 : 0)} ms`);
      setText(byId('link-seq'), room.seq);
      setText(byId('link-epoch'), room.epoch ?? '–');
      setText(byId('link-status'), room.status || '–');
      setText(byId('link-join'), session.lastJoin || '–');
    },
  };
}
