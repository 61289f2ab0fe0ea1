// EXIF orientation of WebP files, applied as in `igcv predict`: not every browser applies it.

const ORIENTATION = 0x112;
const PREFIX = 6; // bytes, "Exif\0\0", which some programs write before the EXIF data

// By orientation: the canvas transform that draws a bitmap of w x h pixels upright.
const TRANSFORMS = {
  2: (w, h) => [-1, 0, 0, 1, w, 0],
  3: (w, h) => [-1, 0, 0, -1, w, h],
  4: (w, h) => [1, 0, 0, -1, 0, h],
  5: (w, h) => [0, 1, 1, 0, 0, 0],
  6: (w, h) => [0, 1, -1, 0, h, 0],
  7: (w, h) => [0, -1, -1, 0, h, w],
  8: (w, h) => [0, -1, 1, 0, 0, w],
};

/** Return { bytes, orientation }: a WebP file with a hidden EXIF chunk, or any other file unchanged and 1. */
export function withoutOrientation(bytes) {
  const at = exifChunk(bytes);
  const orientation = at < 0 ? 1 : orientationIn(new DataView(bytes.buffer, bytes.byteOffset + at + 8));
  if (!(orientation in TRANSFORMS)) return { bytes, orientation: 1 };
  const bare = bytes.slice();
  bare.fill(0x5f, at, at + 4); // an unknown chunk name, which decoders ignore
  return { bytes: bare, orientation };
}

/** Return the offset of the EXIF chunk of a WebP file, or -1. */
function exifChunk(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const name = (at) => String.fromCharCode(...bytes.subarray(at, at + 4));
  if (bytes.length < 12 || name(0) !== "RIFF" || name(8) !== "WEBP") return -1;
  for (let at = 12; at + 8 <= bytes.length; ) {
    if (name(at) === "EXIF") return at;
    const length = view.getUint32(at + 4, true);
    at += 8 + length + (length % 2);
  }
  return -1;
}

/** Return the orientation in EXIF data; undefined if absent or damaged. */
function orientationIn(view) {
  try {
    const start = view.getUint32(0) === 0x45786966 ? PREFIX : 0;
    const little = view.getUint16(start) === 0x4949;
    const first = start + view.getUint32(start + 4, little);
    for (let i = 0; i < view.getUint16(first, little); i++) {
      const entry = first + 2 + 12 * i;
      if (view.getUint16(entry, little) === ORIENTATION) return view.getUint16(entry + 8, little);
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // an offset beyond the end of damaged data
  }
  return undefined;
}

/** Return the upright bitmap, and close the given one. */
export function upright(bitmap, orientation) {
  if (orientation === 1) return bitmap;
  const { width, height } = bitmap;
  const canvas = orientation > 4 ? new OffscreenCanvas(height, width) : new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.setTransform(...TRANSFORMS[orientation](width, height));
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return canvas.transferToImageBitmap();
}
