// The program that a platform's package of this extension brings along. It runs from a copy in the program's own folder:
// the entries of the ssh configuration name its path, and the extension's folder has another name after each update. All
// editors of a user share that copy. The package for all platforms brings none, and uses a copy that is there.

import { mkdir, readFile, readdir, rename, rm, writeFile } from 'node:fs/promises';
import * as path from 'node:path';
import { Failure, NAME } from '../failure';
import { type System, isProgram, programName } from './locate';
import { isOlder } from './version';

/** The folder in which the program keeps its files; the program has the same rule. */
export function ownFolder({ env, home }: System): string {
  const moved = env['LABCTL_SSH_PROXY_HOME'] ?? '';
  return path.isAbsolute(moved) ? moved : path.join(home, '.iximiuz', NAME);
}

/** The path of the copy, which need not exist. */
export function copyPath(system: System): string {
  return path.join(ownFolder(system), 'bin', programName(system.platform));
}

/** The path of the program in the folder of an extension that brings it along. It need not be executable there. */
export function broughtPath(folder: string, { platform }: System): string {
  return path.join(folder, 'bin', programName(platform));
}

/** The package that brings a program along, unless it is the one for all platforms. */
export interface Bundle {
  /** The folder of the extension. */
  folder: string;
  /** The version of the extension, and so of its program. */
  version: string;
  /** Asks a program for its version; `undefined` if it does not run. */
  versionOf: (file: string) => Promise<string | undefined>;
}

/**
 * Returns the path of the copy, which is made if need be. If the package brings no program, a copy may have been downloaded or
 * be another editor's; otherwise returns `undefined`.
 */
export async function bundled(bundle: Bundle, system: System): Promise<string | undefined> {
  const bytes = await readFile(broughtPath(bundle.folder, system)).catch(() => undefined);
  const copy = copyPath(system);
  if (bytes === undefined) return (await isProgram(copy)) ? copy : undefined;
  try {
    if (!(await mayStay(copy, bytes, bundle))) await replace(copy, { bytes, mode: 0o755 }, system.platform);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new Failure('no-binary', `the program of this extension cannot be copied to ${copy}: ${reason}`, `make room there, or install ${NAME}`);
  }
  return copy;
}

/** True if the copy is the program of the package, or a newer one of another editor's package. */
async function mayStay(copy: string, bytes: Buffer, { version, versionOf }: Bundle): Promise<boolean> {
  if (!(await isProgram(copy))) return false;
  if (bytes.equals(await readFile(copy))) return true;
  const present = await versionOf(copy);
  return present !== undefined && isOlder(version, present);
}

/** A file to be installed. */
interface Content {
  bytes: Buffer;
  mode: number;
  /** Called with the path of the new file before it replaces the old one. Throws to keep the old one. */
  check?: (beside: string) => Promise<void>;
}

/** The number of files written so far. Two downloads at a time do not share a file. */
let writes = 0;

/** Writes a file in one step, because connections that are open run the previous program. */
export async function replace(file: string, { bytes, mode, check }: Content, platform: NodeJS.Platform): Promise<void> {
  const folder = path.dirname(file);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const beside = `${file}.${process.pid}-${++writes}.new`;
  try {
    await writeFile(beside, bytes, { mode });
    await check?.(beside);
    if (platform === 'win32') {
      // Windows refuses to replace or delete a program that runs, but lets it be renamed. Earlier ones have ended by now.
      for (const old of (await readdir(folder)).filter((name) => name.endsWith('.old'))) {
        await rm(path.join(folder, old), { force: true }).catch(() => undefined);
      }
      await rename(file, `${file}.${process.pid}.old`).catch(() => undefined);
    }
    await rename(beside, file);
  } finally {
    await rm(beside, { force: true });
  }
}
