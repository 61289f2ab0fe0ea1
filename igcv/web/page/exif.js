// Photographs may say how they are to be turned (EXIF), and browsers obey. The network was trained and measured on
// images as they are stored, and `igcv predict` reads them so; what says otherwise is left out before decoding.

const START_OF_IMAGE = 0xffd8;
const START_OF_SCAN = 0xda;
const APP1 = 0xe1; // where EXIF is, among others

/** The bytes of an image file, of a JPEG without its EXIF; anything else comes back as it is. */
export function withoutExif(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 4 || view.getUint16(0) !== START_OF_IMAGE) return bytes;
  const kept = [bytes.subarray(0, 2)];
  let at = 2;
  // A segment is 0xff, its kind, and its length, which counts the two bytes that it takes itself.
  while (at + 4 <= bytes.length && bytes[at] === 0xff && bytes[at + 1] !== START_OF_SCAN) {
    const end = at + 2 + view.getUint16(at + 2);
    if (bytes[at + 1] !== APP1) kept.push(bytes.subarray(at, end));
    at = end;
  }
  return joined([...kept, bytes.subarray(at)]);
}

function joined(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
