// Run the resizing of the web page for tests: node run_resize.mjs PAGE FOLDER, with FOLDER/images.json and FOLDER/N.rgba.

import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [page, folder] = process.argv.slice(2);
const { centerSquare } = await import(pathToFileURL(`${page}/resize.js`));

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
  writeFileSync(`${folder}/${name}.rgb`, centerSquare({ width, height, read }, preprocessing));
}
