// The version of the binary, and the oldest one that this extension supports.

import { Failure, NAME } from '../failure';

/** The oldest supported version. A test compares it with Cargo.toml. */
export const MINIMUM = '0.1.0';

/** Reads the version in the output of `--version`. */
export function readVersion(output: string): string | undefined {
  return /(\d+\.\d+\.\d+)/.exec(output)?.[1];
}

/** Checks the output of `file --version`. Throws if `file` is another program, or too old. */
export function checkVersion(file: string, output: string): void {
  const version = readVersion(output);
  if (version === undefined) {
    throw new Failure('bad-output', `${file} is not ${NAME}`, 'correct its path in the setting playgrounds.binary');
  }
  if (isOlder(version, MINIMUM)) {
    throw new Failure('old-binary', `${file} is version ${version}, but this extension needs ${MINIMUM} or newer`, 'update it');
  }
}

/** Compares two versions of the form `a.b.c`. */
export function isOlder(version: string, than: string): boolean {
  const [a, b] = [version, than].map((text) => text.split('.').map(Number)) as [number[], number[]];
  for (let i = 0; i < 3; i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0);
    if (difference !== 0) return difference < 0;
  }
  return false;
}
