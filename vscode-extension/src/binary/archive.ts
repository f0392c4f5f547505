// Reads the archives of a release: a tar of the format ustar in gzip, and for Windows a zip. Both are made by
// scripts/package, and their checksum has been compared before, so that only their formats' common parts are read.

import { promisify } from 'node:util';
import { gunzip, inflateRawSync } from 'node:zlib';

/** The largest content that is unpacked, in bytes. A program of a release has about 20 MB. */
const MAX_CONTENT = 256 * 1024 * 1024;
/** The size of a header of tar, and of what contents are padded to. */
const BLOCK = 512;

/** Returns the files of an archive whose names are wanted. Throws if it is no such archive, or too large. */
export async function unpack(packed: Buffer, isWanted: (name: string) => boolean): Promise<Map<string, Buffer>> {
  const isZip = packed.subarray(0, 4).equals(LOCAL_ENTRY);
  return isZip ? unzip(packed, isWanted) : untar(await promisify(gunzip)(packed, { maxOutputLength: MAX_CONTENT }), isWanted);
}

/** Reads a tar: https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html, "ustar Interchange Format". */
function untar(content: Buffer, isWanted: (name: string) => boolean): Map<string, Buffer> {
  const files = new Map<string, Buffer>();
  const text = (from: number, length: number): string => content.toString('utf8', from, from + length).replace(/\0.*$/s, '');
  for (let at = 0; at + BLOCK <= content.length && content[at] !== 0; ) {
    const size = parseInt(text(at + 124, 12).trim(), 8);
    const end = at + BLOCK + size;
    if (text(at + 257, 5) !== 'ustar' || !(size >= 0) || end > content.length) throw new Error('it is not a tar archive');
    const name = text(at, 100).replace(/^\.\//, '');
    const isFile = text(at + 156, 1) === '0' && text(at + 345, 155) === '';
    if (isFile && isWanted(name)) files.set(name, content.subarray(at + BLOCK, end));
    at += BLOCK + Math.ceil(size / BLOCK) * BLOCK;
  }
  return files;
}

const LOCAL_ENTRY = Buffer.from('PK\x03\x04', 'latin1');
const CENTRAL_ENTRY = 0x02014b50;
const END = Buffer.from('PK\x05\x06', 'latin1');

/** Reads a zip by its central directory: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, 4.3. */
function unzip(packed: Buffer, isWanted: (name: string) => boolean): Map<string, Buffer> {
  const files = new Map<string, Buffer>();
  const end = packed.lastIndexOf(END);
  if (end < 0) throw new Error('it is not a complete zip archive');
  let at = packed.readUInt32LE(end + 16);
  for (let left = packed.readUInt16LE(end + 10); left > 0; left--) {
    if (packed.readUInt32LE(at) !== CENTRAL_ENTRY) throw new Error('it is not a zip archive');
    const [method, size, local] = [packed.readUInt16LE(at + 10), packed.readUInt32LE(at + 20), packed.readUInt32LE(at + 42)];
    const [name, extra, comment] = [packed.readUInt16LE(at + 28), packed.readUInt16LE(at + 30), packed.readUInt16LE(at + 32)];
    const file = packed.toString('utf8', at + 46, at + 46 + name);
    if (isWanted(file)) {
      const from = local + 30 + packed.readUInt16LE(local + 26) + packed.readUInt16LE(local + 28);
      const content = packed.subarray(from, from + size);
      files.set(file, method === 0 ? content : inflateRawSync(content, { maxOutputLength: MAX_CONTENT }));
    }
    at += 46 + name + extra + comment;
  }
  return files;
}
