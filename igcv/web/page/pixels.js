// From a file or a camera frame to an image as resize.js reads it.

import { upright, withoutOrientation } from "./webp.js";

const MAX_BYTES = 2 ** 28; // of a file, as for `igcv predict`
const MAX_PIXELS = 89478485;

/** A file (Blob) as an upright bitmap; an Error whose message is for the visitor if it cannot be one. */
export async function decoded(blob) {
  if (blob.size > MAX_BYTES) {
    throw new Error(`This file has ${Math.round(blob.size / 1e6)} MB, more than 268. Try a smaller picture.`);
  }
  const { bytes, orientation } = withoutOrientation(new Uint8Array(await blob.arrayBuffer()));
  let bitmap;
  try {
    // As for `igcv predict`: turned by the EXIF orientation, and color profiles are ignored.
    const settings = { imageOrientation: "from-image", colorSpaceConversion: "none" };
    bitmap = await createImageBitmap(new Blob([bytes]), settings);
  } catch {
    throw new Error("This file is no picture that the browser can read. Try a JPEG, PNG or WebP file.");
  }
  if (bitmap.width * bitmap.height <= MAX_PIXELS) return upright(bitmap, orientation);
  const size = `${bitmap.width} × ${bitmap.height}`;
  bitmap.close();
  throw new Error(`This picture has ${size} pixels, more than 89 million in all. Try a smaller one.`);
}

/**
 * The pixels of a bitmap on white, read in parts, as the whole may be more than a canvas can hold.
 */
export function readable(bitmap) {
  const canvas = new OffscreenCanvas(1, 1);
  return {
    width: bitmap.width,
    height: bitmap.height,
    read(left, top, width, height) {
      Object.assign(canvas, { width, height }); // which also clears it
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.fillStyle = "white"; // behind what is transparent, as for `igcv predict`
      context.fillRect(0, 0, width, height);
      context.drawImage(bitmap, -left, -top);
      return context.getImageData(0, 0, width, height).data;
    },
  };
}
