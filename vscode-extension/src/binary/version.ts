// The version of the binary, and the oldest one that the extension can use.

import { Failure, NAME } from '../failure';

/** The oldest version that prints what this extension reads. Cargo.toml's version is at least this one. */
export const MINIMUM = '0.1.0';

/** Throws unless the output of `FILE --version` is that of a binary which is new enough. */
export function checkVersion(file: string, output: string): void {
  const version = /(\d+\.\d+\.\d+)/.exec(output)?.[1];
  if (version === undefined) {
    throw new Failure('bad-output', `${file} is not ${NAME}`, 'correct the setting playgrounds.binary');
  }
  if (isOlder(version, MINIMUM)) {
    throw new Failure('old-binary', `${file} is version ${version}, and ${MINIMUM} is needed`, 'update it');
  }
}

/** Compares two versions `a.b.c`. */
export function isOlder(version: string, than: string): boolean {
  const [a, b] = [version, than].map((text) => text.split('.').map(Number)) as [number[], number[]];
  for (let i = 0; i < 3; i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0);
    if (difference !== 0) return difference < 0;
  }
  return false;
}
