// The path of the binary: the configured one, else the first in PATH and in the folders of installers, else the one that
// the extension brings along.

import { constants } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import * as path from 'node:path';
import { Failure, NAME } from '../failure';

/** The part of the system that the search depends on. */
export interface System {
  env: NodeJS.ProcessEnv;
  platform: NodeJS.Platform;
  home: string;
}

/** The file name of the program. */
export function programName(platform: NodeJS.Platform): string {
  return platform === 'win32' ? `${NAME}.exe` : NAME;
}

/**
 * Finds the binary. A path in the setting, `configured`, excludes all others. An installed program comes before the one of
 * the extension, `bundled`: otherwise the user's terminal and the extension would each write their own path into the ssh
 * configuration, again and again.
 */
export async function locate(configured: string, system: System, bundled: () => Promise<string | undefined>): Promise<string> {
  const setting = configured.trim().replace(/^~(?=[\\/])/, system.home);
  if (setting !== '') {
    if (await isProgram(setting)) return setting;
    throw new Failure('no-binary', `${setting} is not a program`, 'correct its path in the setting playgrounds.binary');
  }
  const name = programName(system.platform);
  for (const folder of [...searchPath(system), ...installFolders(system)]) {
    const file = path.join(folder, name);
    // A relative folder in PATH could lie in the workspace, which is not trusted.
    if (path.isAbsolute(folder) && (await isProgram(file))) return file;
  }
  const own = await bundled();
  if (own !== undefined) return own;
  throw new Failure('no-binary', `the program ${NAME} was not found`, 'install it, or set its path in the setting playgrounds.binary');
}

function searchPath({ env, platform }: System): string[] {
  return (env['PATH'] ?? env['Path'] ?? '').split(platform === 'win32' ? ';' : ':');
}

/** The folders that installers use. An editor that was started from a dock or a menu may lack them in PATH. */
function installFolders({ env, platform, home }: System): string[] {
  if (platform === 'win32') {
    const local = env['LOCALAPPDATA'] ?? path.join(home, 'AppData', 'Local');
    return [path.join(home, '.cargo', 'bin'), path.join(local, 'Programs', NAME), path.join(home, 'scoop', 'shims')];
  }
  return [
    path.join(home, '.cargo', 'bin'),
    path.join(home, '.local', 'bin'),
    path.join(home, 'bin'),
    '/usr/local/bin',
    '/opt/homebrew/bin',
    '/home/linuxbrew/.linuxbrew/bin',
    '/usr/bin',
  ];
}

export async function isProgram(file: string): Promise<boolean> {
  try {
    await access(file, constants.X_OK);
    return (await stat(file)).isFile();
  } catch {
    return false;
  }
}
