// A playground in a window of the editor: entries made, awake, then opened.

import { homedir } from 'node:os';
import * as vscode from 'vscode';
import { authorityOf } from './authority';
import type { Binary } from './binary';
import { offerSettings } from './offer';
import type { Work } from './work';
import { type Playground, failedTasks, started } from './wire';

/** The home of a user. The platform's machines are Linux. */
const homeOf = (user: string): string => (user === 'root' ? '/root' : `/home/${user}`);

/** The folder to open on a host: its user's home. */
export function folderOn(host: string, user: string): vscode.Uri {
  return vscode.Uri.from({ scheme: 'vscode-remote', authority: authorityOf(host), path: homeOf(user) });
}

/** Makes the entries that ssh needs exist. */
export async function makeEntries(binary: Binary, { signal, say }: Work): Promise<void> {
  say('writing the ssh configuration');
  // Remote-SSH may have been told to read another file.
  const file = vscode.workspace.getConfiguration('remote.SSH').get<string>('configFile') ?? '';
  const named = file === '' ? [] : ['--ssh-config-file', file.replace(/^~(?=[/\\])/, homedir())];
  await binary.run(['config-ssh', '--yes', ...named], { signal, onProgress: say });
}

/**
 * Wakes a playground on purpose: a stop on purpose is forgotten. Waits until its machines answer and its init tasks have
 * completed. Where one has failed already, as `known` tells, it does not wait for them: the playground could never be
 * opened again.
 */
export async function wake(binary: Binary, id: string, known: Playground | undefined, { signal, say }: Work): Promise<Playground> {
  say('waking');
  const waits = known && failedTasks(known).length > 0 ? ['--no-wait-init'] : [];
  return binary.ask(['start', id, '--json', ...waits], started, { signal, onProgress: say });
}

/** Opens a host of a playground that is awake. */
export async function openHost(memory: vscode.Memento, host: string, user: string, newWindow: boolean): Promise<void> {
  await offerSettings(memory, host);
  const how = newWindow ? { forceNewWindow: true } : { forceReuseWindow: true };
  await vscode.commands.executeCommand('vscode.openFolder', folderOn(host, user), how);
}
