// Before Remote-SSH resolves a playground's host: VS Code waits for this extension's activation, without any limit, and
// here the playground wakes. Windows that come back by themselves do not undo a stop on purpose: the user is asked.

import * as vscode from 'vscode';
import { named, parts } from './authority';
import { type Binary, Failure } from './binary';
import { makeEntries, wake } from './open';
import type { Watch } from './watch';
import { type Playground, condition } from './wire';
import { question, tell, withLateProgress, withProgress } from './work';

/** The remote authority of this window; undefined for a local window. */
export function windowAuthority(): string | undefined {
  const uris = [vscode.workspace.workspaceFile, ...(vscode.workspace.workspaceFolders ?? []).map((folder) => folder.uri)];
  return uris.find((uri) => uri?.scheme === 'vscode-remote')?.authority ?? emptyWindowAuthority();
}

/** A window without a folder: not every editor tells an extension what it is connected to. */
function emptyWindowAuthority(): string | undefined {
  try {
    const { remoteAuthority } = vscode.env as { remoteAuthority?: unknown };
    return typeof remoteAuthority === 'string' ? remoteAuthority : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Wakes the playground of a window, with visible progress. Never rejects: what goes wrong is told, and then Remote-SSH
 * tries on its own.
 */
export async function prewake(binary: Binary, watch: Watch, host: string): Promise<void> {
  try {
    const all = await withLateProgress(`Looking for ${host}`, (signal) => watch.look({ signal }));
    const found = named(host, all);
    const title = found?.title || host;
    const wish = await wished(all, host);
    if (wish === 'nothing') return;
    await withProgress(wish === 'wake' ? `Waking ${title}` : `Opening ${title}`, async (work) => {
      // There may be entries that serve, though they cannot be written.
      await makeEntries(binary, work).catch((error: unknown) => {
        if (work.signal.aborted) throw error;
        tell(error);
      });
      if (wish === 'wake') await wake(binary, host, found, work);
    });
  } catch (error) {
    tell(error);
  }
}

/** Chooses what to do for a window. A window that comes back by itself does not undo a stop on purpose: the user is asked. */
async function wished(all: Playground[], host: string): Promise<'wake' | 'entries' | 'nothing'> {
  const found = named(host, all);
  // A name of the catalogue that nothing is started from yet is a wish for a new one.
  if (!found && !parts(host).isId) return 'wake';
  const now = found && condition(found);
  if (!found || now === 'gone') throw new Failure('not-found', `${host} does not exist any more`);
  const { machine } = parts(host);
  if (found.machines.some((one) => one.name === machine && !one.ssh)) {
    throw new Failure('failed', `the platform does not allow SSH access to machine ${machine ?? ''}`, 'open another machine');
  }
  if (now === 'up') return 'entries';
  if (!found.stoppedOnPurpose || now === 'starting') return 'wake';
  const yes = 'Start It';
  const answer = await question(`${found.title || host} was stopped on purpose. Start it again?`, 'Leave It Stopped', yes);
  return answer === yes ? 'wake' : 'nothing';
}
