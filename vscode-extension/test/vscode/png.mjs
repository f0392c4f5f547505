// Makes pictures of windows small: a PNG with a palette has half the size of the one that the browser makes. A window has a few
// hundred colours, most of them on the edges of letters, so that each has one beside it that looks the same.
import { crc32, deflateSync, inflateSync } from 'node:zlib';

const MAGIC = Buffer.from('\x89PNG\r\n\x1a\n', 'latin1');

function* chunks(png) {
  for (let at = MAGIC.length; at < png.length; ) {
    const end = at + 8 + png.readUInt32BE(at);
    yield { type: png.toString('latin1', at + 4, at + 8), data: png.subarray(at + 8, end) };
    at = end + 4;
  }
}

function chunk(type, data) {
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
  const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(data.length);
  sum.writeUInt32BE(crc32(body));
  return Buffer.concat([length, body, sum]);
}

/** The predictor of each filter of PNG, from the bytes to the left, above, and above left. */
const FILTERS = [
  () => 0,
  (left) => left,
  (_, above) => above,
  (left, above) => (left + above) >> 1,
  (left, above, corner) => {
    const guess = left + above - corner;
    const [a, b, c] = [left, above, corner].map((one) => Math.abs(guess - one));
    return a <= b && a <= c ? left : b <= c ? above : corner;
  },
];

/** The pixels of a PNG with 8 bits each for red, green and blue, as the browser makes it. */
function decode(png) {
  const all = [...chunks(png)];
  const header = all[0].data;
  const [width, height] = [header.readUInt32BE(0), header.readUInt32BE(4)];
  if (header[8] !== 8 || header[9] !== 2 || header[12] !== 0) throw new Error('not a PNG of 24 bits');
  const packed = inflateSync(Buffer.concat(all.filter((one) => one.type === 'IDAT').map((one) => one.data)));
  const row = width * 3;
  const pixels = Buffer.alloc(row * height);
  const byte = (x, y) => (x < 0 || y < 0 ? 0 : pixels[y * row + x]);
  for (let y = 0; y < height; y += 1) {
    const guess = FILTERS[packed[y * (row + 1)]];
    for (let x = 0; x < row; x += 1) {
      pixels[y * row + x] = packed[y * (row + 1) + 1 + x] + guess(byte(x - 3, y), byte(x, y - 1), byte(x - 3, y - 1));
    }
  }
  return { width, height, header, pixels };
}

const distance = (a, b) => [16, 8, 0].reduce((sum, shift) => sum + (((a >> shift) & 255) - ((b >> shift) & 255)) ** 2, 0);

/** Chooses at most 256 of these colours, so that each is near one of them. No colour is given up because it is rare. */
function choose(colors) {
  for (let far = 0; ; far += 1) {
    const palette = [];
    for (const one of colors) {
      if (palette.length <= 256 && palette.every((other) => distance(one, other) > far * far)) palette.push(one);
    }
    if (palette.length <= 256) return palette;
  }
}

/** The same picture with a palette. */
export function withPalette(png) {
  const { width, height, header, pixels } = decode(png);
  const color = (i) => pixels.readUIntBE(i * 3, 3);
  const counts = new Map();
  for (let i = 0; i < width * height; i += 1) counts.set(color(i), (counts.get(color(i)) ?? 0) + 1);
  const palette = choose([...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a)));
  const nearest = (one) => palette.reduce((best, other, i) => (distance(one, other) < distance(one, palette[best]) ? i : best), 0);
  const index = new Map([...counts.keys()].map((one) => [one, nearest(one)]));
  const rows = Buffer.alloc((width + 1) * height);
  for (let i = 0; i < width * height; i += 1) rows[i + Math.floor(i / width) + 1] = index.get(color(i));
  const colors = Buffer.alloc(palette.length * 3);
  palette.forEach((one, i) => colors.writeUIntBE(one, i * 3, 3));
  const kind = Buffer.from(header);
  kind[9] = 3;
  const data = deflateSync(rows, { level: 9, memLevel: 9 });
  return Buffer.concat([MAGIC, chunk('IHDR', kind), chunk('PLTE', colors), chunk('IDAT', data), chunk('IEND', Buffer.alloc(0))]);
}
