// Images to be sent: read as data URLs, and made smaller where the gateway would refuse them.

const KINDS = ['image/png', 'image/jpeg', 'image/gif', 'image/webp'];
// Larger than any screen shows it.
const WIDEST_PX = 4096;
const SMALLEST_PX = 32;
const SHRINK = 0.7;
const QUALITY = 0.85;
// The command around the body.
const FRAME_BYTES = 512;

/** Why an image cannot be sent, in words. */
export class ImageError extends Error {}

const kilobytes = (bytes) => `${Math.ceil(bytes / 1024).toLocaleString()} kB`;

/** The largest body that the gateway takes in this room, in bytes. Two are the quotes around it. */
export function largestBody(limits = {}, config = {}) {
  const { maxMessageBytes = Infinity, maxFrameBytes = Infinity } = limits;
  return Math.min(maxMessageBytes, config.maxMessageBytes ?? Infinity, maxFrameBytes - FRAME_BYTES) - 2;
}

function read(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new ImageError('This file cannot be read.'));
    reader.readAsDataURL(file);
  });
}

function drawn(bitmap, width) {
  const canvas = document.createElement('canvas');
  canvas.width = Math.max(1, Math.round(width));
  canvas.height = Math.max(1, Math.round((bitmap.height * canvas.width) / bitmap.width));
  canvas.getContext('2d').drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL('image/webp', QUALITY);
}

/** The data URL of a file, of at most `most` bytes. A picture that is made smaller keeps its shape; it moves no more. */
export async function imageUrl(file, most) {
  if (!KINDS.includes(file.type)) throw new ImageError('Only png, jpeg, gif and webp images can be sent.');
  const whole = await read(file);
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new ImageError('This file is no image that the browser can show.');
  }
  try {
    if (whole.length <= most) return whole;
    for (let width = Math.min(bitmap.width, WIDEST_PX); width >= SMALLEST_PX; width *= SHRINK) {
      const smaller = drawn(bitmap, width);
      if (smaller.length <= most) return smaller;
    }
  } finally {
    bitmap.close();
  }
  throw new ImageError(`This image is too large: ${kilobytes(whole.length)}, where ${kilobytes(Math.max(0, most))} are allowed, and it cannot be made small enough.`);
}

/** The images among what was pasted or dropped. */
export const filesOf = (transfer) => [...(transfer?.files ?? [])].filter(({ type }) => type.startsWith('image/'));
