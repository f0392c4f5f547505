// VS Code runs this script after the extension was uninstalled. It takes back the copy of the program that came with the
// extension or was downloaded by it, and the lines of the ssh configuration that name that copy. What another installation wrote stays.

import { execFile } from 'node:child_process';
import { readFile, readdir, rm, rmdir } from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { promisify } from 'node:util';
import { copyPath, ownFolder } from './binary/bundled';
import { type System, isProgram } from './binary/locate';
import { NAME } from './failure';

/** The longest time that the removal from the ssh configuration may take. */
const REMOVAL_MS = 30_000;

async function takeBack(system: System): Promise<void> {
  const copy = copyPath(system);
  if (!(await isProgram(copy))) return;
  const entries = await readFile(path.join(ownFolder(system), 'ssh_config'), 'utf8').catch(() => '');
  // The program writes forward slashes on Windows, too.
  if (entries.includes(copy.replaceAll('\\', '/'))) {
    await promisify(execFile)(copy, ['config-ssh', '--remove', '--yes'], { timeout: REMOVAL_MS, windowsHide: true });
  }
  const [folder, name] = [path.dirname(copy), path.basename(copy)];
  const ours = (await readdir(folder)).filter((file) => file === name || file.startsWith(`${name}.`) || file.startsWith(`${NAME}-helper-`));
  for (const file of ours) await rm(path.join(folder, file), { force: true });
  // It stays if there is something else in it.
  await rmdir(folder).catch(() => undefined);
}

takeBack({ env: process.env, platform: process.platform, home: os.homedir() }).catch((error: unknown) => {
  process.stderr.write(`${String(error)}\n`);
  process.exitCode = 1;
});
