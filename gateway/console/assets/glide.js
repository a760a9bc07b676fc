// Marks that glide from where they are shown to where they belong, at an even speed. One loop draws all of them, and
// only while something moves.

const still = matchMedia('(prefers-reduced-motion: reduce)');

/** A mark is any object; this keeps its shown place in `x` and `y`, and calls `show(mark, resting)` whenever they change. */
export function createGlide(show) {
  // The way of each mark that moves: `{ from, to, start, ms }`.
  const ways = new Map();
  let loop = 0;
  let drawn = 0;

  function put(mark, { x, y }, resting) {
    mark.x = x;
    mark.y = y;
    show(mark, resting);
  }

  function step(now) {
    drawn = now;
    for (const [mark, { from, to, start, ms }] of ways) {
      // The clock of a frame may be a little behind the moment in which the way began.
      const part = Math.max(0, (now - start) / ms);
      if (part < 1) {
        put(mark, { x: from.x + (to.x - from.x) * part, y: from.y + (to.y - from.y) * part }, false);
      } else {
        jump(mark, to);
      }
    }
    loop = ways.size > 0 ? requestAnimationFrame(step) : 0;
  }

  function jump(mark, place) {
    ways.delete(mark);
    put(mark, place, true);
  }

  return {
    jump,
    to(mark, place, ms) {
      if (still.matches) return jump(mark, place);
      // On the way already: on from the frame that was drawn last, or each new place would cost part of a frame.
      const way = ways.get(mark);
      const start = way ? Math.max(way.start, drawn) : performance.now();
      ways.set(mark, { from: { x: mark.x, y: mark.y }, to: place, start, ms });
      if (!loop) loop = requestAnimationFrame(step);
    },
    drop(mark) {
      ways.delete(mark);
    },
  };
}
