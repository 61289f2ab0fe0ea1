// Conversion of files and camera frames to the image interface of resize.js.

import { upright, withoutOrientation } from "./webp.js";

const MAX_BYTES = 2 ** 28; // per file, the limit of `igcv predict`
const MAX_PIXELS = 89478485;

/** Decode a file (Blob) to an upright bitmap; throw an Error with a message for the visitor if that fails. */
export async function decoded(blob) {
  if (blob.size > MAX_BYTES) {
    throw new Error(`This file has ${Math.round(blob.size / 1e6)} MB, the limit is 268 MB. Try a smaller picture.`);
  }
  const { bytes, orientation } = withoutOrientation(new Uint8Array(await blob.arrayBuffer()));
  let bitmap;
  try {
    // As in `igcv predict`: apply the EXIF orientation, ignore color profiles.
    const settings = { imageOrientation: "from-image", colorSpaceConversion: "none" };
    bitmap = await createImageBitmap(new Blob([bytes]), settings);
  } catch {
    throw new Error("The browser cannot read this file as a picture. Try a JPEG, PNG or WebP file.");
  }
  if (bitmap.width * bitmap.height <= MAX_PIXELS) return upright(bitmap, orientation);
  const size = `${bitmap.width} × ${bitmap.height}`;
  bitmap.close();
  throw new Error(`This picture has ${size} pixels, the limit is 89 million pixels. Try a smaller picture.`);
}

/**
 * Return an image interface to a bitmap on white, read in parts: the whole bitmap may exceed the canvas limits.
 */
export function readable(bitmap) {
  const canvas = new OffscreenCanvas(1, 1);
  return {
    width: bitmap.width,
    height: bitmap.height,
    read(left, top, width, height) {
      Object.assign(canvas, { width, height }); // also clears the canvas
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.fillStyle = "white"; // behind transparent pixels, as in `igcv predict`
      context.fillRect(0, 0, width, height);
      context.drawImage(bitmap, -left, -top);
      return context.getImageData(0, 0, width, height).data;
    },
  };
}
