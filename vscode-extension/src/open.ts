// The steps that open a playground in a window: write the ssh configuration, wake the playground, open its host.

import { homedir } from 'node:os';
import * as vscode from 'vscode';
import { authorityOf } from './authority';
import type { Binary } from './binary';
import { STEPS } from './commands';
import { readStarted } from './json';
import { tellingSetups } from './messages';
import { type Playground, failedTasks } from './playground';
import type { Work } from './progress';
import { configFile, offerSettings } from './remotesettings';

/** Writes the entries of all playgrounds into the ssh configuration. */
export async function writeEntries(binary: Binary, { signal, report }: Work): Promise<void> {
  report('updating the SSH configuration');
  // Remote-SSH may be configured to read another file.
  const file = configFile();
  const named = file === '' ? [] : ['--ssh-config-file', file.replace(/^~(?=[/\\])/, homedir())];
  await binary.run(['config-ssh', '--yes', '--json', ...named], { signal, onProgress: report });
  void vscode.commands.executeCommand('setContext', STEPS.isConfigured, true);
}

/**
 * Wakes a playground, even one that the user stopped deliberately. Waits until its machines answer and its init tasks have
 * completed. If an init task of `known` has failed, it waits for the machines only, so that such a playground can still be
 * opened.
 */
export async function wake(binary: Binary, id: string, known: Playground | undefined, { signal, report }: Work): Promise<Playground> {
  report('waking the playground');
  const waits = known && failedTasks(known).length > 0 ? ['--no-wait-init'] : [];
  return binary.ask(['start', id, '--json', ...waits], readStarted, { signal, onProgress: tellingSetups(report) });
}

/** Opens a folder on a host of a running playground. */
export async function openHost(memory: vscode.Memento, host: string, folder: string, newWindow: boolean): Promise<void> {
  await offerSettings(memory, host);
  const options = newWindow ? { forceNewWindow: true } : { forceReuseWindow: true };
  await vscode.commands.executeCommand('vscode.openFolder', folderOn(host, folder), options);
}

/** The home folder of a user. The platform's machines are Linux. */
export const homeOf = (user: string): string => (user === 'root' ? '/root' : `/home/${user}`);

const folderOn = (host: string, path: string): vscode.Uri =>
  vscode.Uri.from({ scheme: 'vscode-remote', authority: authorityOf(host), path });
