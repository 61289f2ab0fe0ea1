// Runs the page's own resizing for tests: node run_resize.mjs FOLDER, with images.json there and FOLDER/N.rgba as bytes.

import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [page, folder] = process.argv.slice(2);
const { centreSquare } = await import(pathToFileURL(`${page}/resize.js`));

for (const { name, width, height, preprocessing } of JSON.parse(readFileSync(`${folder}/images.json`))) {
  const pixels = readFileSync(`${folder}/${name}.rgba`);
  const read = (left, top, columns, rows) => {
    const part = new Uint8ClampedArray(4 * columns * rows);
    for (let row = 0; row < rows; row++) {
      const from = 4 * ((top + row) * width + left);
      part.set(pixels.subarray(from, from + 4 * columns), 4 * columns * row);
    }
    return part;
  };
  writeFileSync(`${folder}/${name}.rgb`, centreSquare({ width, height, read }, preprocessing));
}
