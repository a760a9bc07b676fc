// Colours of members and of the room. They come from others, so nothing but `#rrggbb` is let into a style.

export const PALETTE = ['#2b59c3', '#0f7b6c', '#7a4fbf', '#b3423a', '#9a6200', '#3d6b21', '#a83279', '#4d5b6b'];

export const isColour = (value) => typeof value === 'string' && /^#[0-9a-f]{6}$/i.test(value);

/** The colour that a user has without choosing: the same on every screen. */
export function colourOf(userId) {
  let hash = 0;
  for (const char of userId) hash = (hash * 31 + char.codePointAt(0)) >>> 0;
  return PALETTE[hash % PALETTE.length];
}

/** Black or white, whichever can be read better on the colour (WCAG's relative luminance). */
export function inkOn(colour) {
  const [r, g, b] = [1, 3, 5]
    .map((at) => parseInt(colour.slice(at, at + 2), 16) / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? '#000000' : '#ffffff';
}

/** One or two letters: of the first and the last word of a name. */
export function initials(name) {
  const words = name.trim().split(/\s+/);
  const last = words.length > 1 ? words[words.length - 1] : '';
  return [words[0], last].map((word) => ([...word][0] ?? '')).join('').toUpperCase();
}

/** Paints the mark with a member's initials. */
export function paintMark(mark, user) {
  const chosen = user?.presence?.colour;
  const colour = isColour(chosen) ? chosen : colourOf(user.id);
  mark.textContent = initials(user.name || user.id);
  mark.style.backgroundColor = colour;
  mark.style.color = inkOn(colour);
}
