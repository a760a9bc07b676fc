// Users who connect, join, chat, read back and leave, against gateways that run already (anonymous mode).
//
//   ROOMGATE_URLS=http://127.0.0.1:8080,http://127.0.0.1:8081 k6 run loadtest/k6/rooms.js
//
// The exit code is not 0 when a threshold fails: any error, an event out of order or lost, or slow answers.
// Environment: ROOMGATE_URLS (comma list; users are spread over it), USERS (50), ROOMS (5), DURATION (30s: how long new
// visits begin), VISIT_MS (10000: how long a user stays in its room), THINK_MS (500: mean time between messages),
// ACK_P99_MS (250).
import { WebSocket } from "k6/websockets";
import exec from "k6/execution";
import { Counter, Trend } from "k6/metrics";

const urls = (__ENV.ROOMGATE_URLS || "http://127.0.0.1:8080").split(",").map((url) => url.trim().replace(/\/$/, ""));
const users = Number(__ENV.USERS || 50);
const rooms = Number(__ENV.ROOMS || 5);
const visitMs = Number(__ENV.VISIT_MS || 10_000);
const thinkMs = Number(__ENV.THINK_MS || 500);
const answerMs = 10_000;

const errors = new Counter("roomgate_errors");
const holes = new Counter("roomgate_holes");
const missed = new Counter("roomgate_missed");
const sent = new Counter("roomgate_messages_acknowledged");
const received = new Counter("roomgate_messages_received");
const joinTime = new Trend("roomgate_join", true);
const ackTime = new Trend("roomgate_ack", true);
const deliveryTime = new Trend("roomgate_delivery", true);

export const options = {
  scenarios: {
    visits: { executor: "constant-vus", vus: users, duration: __ENV.DURATION || "30s", gracefulStop: "60s" },
  },
  thresholds: {
    roomgate_errors: ["count==0"],
    roomgate_holes: ["count==0"],
    roomgate_missed: ["count==0"],
    roomgate_messages_acknowledged: ["count>0"],
    roomgate_messages_received: ["count>0"],
    roomgate_ack: [`p(99)<${Number(__ENV.ACK_P99_MS || 250)}`],
  },
};

// The same rooms for all users of a run, others than those of the run before.
export function setup() {
  return { run: `k6-${Date.now().toString(36)}` };
}

export default function ({ run }) {
  const vu = exec.vu.idInTest;
  const user = `${run}-u${vu}`;
  const room = `${run}-r${vu % rooms}`;
  // Neighbours in a room are on different gateways.
  const base = urls[Math.floor(vu / rooms) % urls.length].replace(/^http/, "ws");
  visit(new WebSocket(`${base}/ws?user=${user}&name=${user}`, "roomgate.v1"), room);
}

/** One visit: everything from `welcome` to the close. */
function visit(socket, room) {
  const pending = new Map();
  // The server remembers ids for minutes, so a user's next visit has others.
  const visitId = exec.vu.iterationInInstance;
  let nextId = 0;
  let seq = null; // the last event seen; null outside of the room
  let waiting = null; // {head, done}: told once `seq` reaches `head`
  let closing = false;
  let talk = null;

  const fault = (what) => {
    errors.add(1);
    console.error(`${room}: ${what}`);
  };

  const close = () => {
    closing = true;
    clearTimeout(talk);
    socket.close(1000);
  };

  /** Sends a command; `then` gets the ack's data and the time it took. */
  const ask = (type, data, then) => {
    const id = `v${visitId}-${++nextId}`;
    const timer = setTimeout(() => {
      pending.delete(id);
      fault(`${type}: no answer in ${answerMs} ms`);
      close();
    }, answerMs);
    pending.set(id, { type, then, timer, at: Date.now() });
    socket.send(JSON.stringify({ id, type, room, data }));
  };

  const answered = (frame) => {
    const asked = pending.get(frame.id);
    if (!asked) return fault(`${frame.type} to no command: ${JSON.stringify(frame)}`);
    pending.delete(frame.id);
    clearTimeout(asked.timer);
    if (frame.type === "error") {
      fault(`${asked.type}: ${JSON.stringify(frame.data)}`);
      return asked.type === "join" ? close() : undefined;
    }
    asked.then(frame.data, Date.now() - asked.at);
  };

  const event = (frame) => {
    if (seq === null || frame.room !== room) return fault(`an event of a room that is not joined: ${frame.type}`);
    if (frame.seq !== seq + 1) {
      holes.add(1);
      console.error(`${room}: seq ${frame.seq} after ${seq}`);
    }
    seq = frame.seq;
    if (frame.type === "message.sent") {
      received.add(1);
      const at = frame.data.body && frame.data.body.sentAt;
      if (at) deliveryTime.add(Date.now() - at);
    }
    if (waiting && seq >= waiting.head) {
      const { done, timer } = waiting;
      waiting = null;
      clearTimeout(timer);
      done();
    }
  };

  const say = () => {
    const text = "a message of about a hundred bytes with all that stands around it, as people write them";
    ask("message.send", { body: { text, sentAt: Date.now() } }, (_, took) => {
      sent.add(1);
      ackTime.add(took);
      if (!closing) talk = setTimeout(say, thinkMs * (0.5 + Math.random()));
    });
  };

  const readBack = () =>
    ask("message.history", { limit: 50 }, ({ messages }) => {
      const inOrder = messages.every((message, at) => at === 0 || messages[at - 1].seq < message.seq);
      if (!inOrder || messages.length > 50) fault("a page of history that is too long or out of order");
    });

  // Whatever had happened in the room when `state.get` was answered must arrive here before the leave.
  const leave = () => {
    clearTimeout(talk);
    ask("state.get", { fields: ["none"] }, ({ seq: head }) => {
      const go = () =>
        ask("leave", {}, () => {
          seq = null;
          close();
        });
      if (seq >= head) return go();
      const timer = setTimeout(() => {
        missed.add(head - seq);
        console.error(`${room}: seq ${head} exists; this user saw ${seq} and no more`);
        waiting = null;
        go();
      }, answerMs);
      waiting = { head, done: go, timer };
    });
  };

  socket.onmessage = ({ data }) => {
    const frame = JSON.parse(data);
    if (frame.type === "ack" || frame.type === "error") return answered(frame);
    if (frame.type === "welcome") {
      return ask("join", { messages: 20 }, (picture, took) => {
        joinTime.add(took);
        seq = picture.seq;
        say();
        setTimeout(readBack, visitMs / 2);
        setTimeout(leave, visitMs);
      });
    }
    if (frame.seq !== undefined) event(frame);
  };
  socket.onerror = (error) => {
    if (!closing) fault(`socket: ${error.error}`);
  };
  socket.onclose = ({ code }) => {
    if (!closing) fault(`closed with ${code}`);
    closing = true;
    clearTimeout(talk);
    pending.forEach(({ timer }) => clearTimeout(timer));
  };
}
