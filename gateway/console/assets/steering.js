// Going to a place on the map: by pressing there, by dragging, by the arrow keys.

const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
// A key goes one step at once. Held for longer than a tap, it goes on evenly. In pixels, so that a diagonal is one.
const STEP_PX = 10;
const SPEED_PX_S = 240;
const TAP_MS = 180;
// With Shift.
const FASTER = 4;
// A frame that came late moves no farther than this: after a stall nobody is flung across the map.
const LONGEST_FRAME_MS = 100;

/**
 * `box` takes the pointer and the keys, `plane` inside it is what 0 to 1 means.
 * `at()` gives the present place or `null`, `size()` the plane's `{ width, height }`; `go(place)` is told the new one.
 */
export function createSteering(box, plane, { at, size, go }) {
  let pointer = null;

  function follow(event) {
    const { left, top, width, height } = plane.getBoundingClientRect();
    if (at() && width > 0 && height > 0) go({ x: (event.clientX - left) / width, y: (event.clientY - top) / height });
  }

  box.addEventListener('pointerdown', (event) => {
    // The first finger and the main button only.
    if (!event.isPrimary || event.button !== 0) return;
    pointer = event.pointerId;
    box.setPointerCapture(pointer);
    follow(event);
  });
  box.addEventListener('pointermove', (event) => {
    if (event.pointerId === pointer) follow(event);
  });
  // Comes after a release, a cancelled touch, and where the browser takes the pointer away.
  box.addEventListener('lostpointercapture', (event) => {
    if (event.pointerId === pointer) pointer = null;
  });

  const held = new Set();
  let fast = false;
  let last = 0;
  let loop = 0;

  function walk(ways, px) {
    const place = at();
    const { width, height } = size();
    if (!place || width === 0 || height === 0) return;
    const [x, y] = ways.reduce(([sumX, sumY], [byX, byY]) => [sumX + byX, sumY + byY], [0, 0]);
    const length = Math.hypot(x, y);
    if (length > 0) go({ x: place.x + (x / length) * (px / width), y: place.y + (y / length) * (px / height) });
  }

  function frame(now) {
    if (now > last) {
      const ms = Math.min(now - last, LONGEST_FRAME_MS);
      last = now;
      walk([...held].map((key) => KEYS[key]), (SPEED_PX_S * (fast ? FASTER : 1) * ms) / 1000);
    }
    loop = held.size > 0 ? requestAnimationFrame(frame) : 0;
  }

  function release() {
    held.clear();
  }

  box.addEventListener('keydown', (event) => {
    fast = event.shiftKey;
    // With these the arrows are the browser's.
    if (!(event.key in KEYS) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    if (held.has(event.key)) return;
    held.add(event.key);
    walk([KEYS[event.key]], STEP_PX * (fast ? FASTER : 1));
    if (loop) return;
    last = performance.now() + TAP_MS;
    loop = requestAnimationFrame(frame);
  });
  box.addEventListener('keyup', (event) => {
    fast = event.shiftKey;
    // A Mac tells nothing of keys that are let go while Cmd is held.
    if (event.key === 'Meta') release();
    held.delete(event.key);
  });
  box.addEventListener('blur', release);

  return { release };
}
