// Before Remote-SSH resolves a playground's host: VS Code waits for this extension's activation, without any limit, and
// here the playground wakes. Windows that come back by themselves do not undo a stop on purpose: the user is asked.

import * as vscode from 'vscode';
import { findByHost, parseHost } from './authority';
import type { Binary } from './binary';
import { Failure } from './failure';
import { ask, showFailure } from './messages';
import { makeEntries, wake } from './open';
import { type Playground, condition } from './playground';
import { type Work, withLateProgress, withProgress } from './progress';
import type { Watch } from './watch';

/** The remote authority of this window; undefined for a local window. */
export function windowAuthority(): string | undefined {
  const uris = [vscode.workspace.workspaceFile, ...(vscode.workspace.workspaceFolders ?? []).map((folder) => folder.uri)];
  return uris.find((uri) => uri?.scheme === 'vscode-remote')?.authority ?? emptyWindowAuthority();
}

/** The authority of a window without a folder. Not every editor lets an extension see it. */
function emptyWindowAuthority(): string | undefined {
  try {
    const { remoteAuthority } = vscode.env as { remoteAuthority?: unknown };
    return typeof remoteAuthority === 'string' ? remoteAuthority : undefined;
  } catch {
    return undefined;
  }
}

/** Wakes the playground of a window, with visible progress. Never rejects: it shows a failure, and Remote-SSH connects on its own. */
export async function prewake(binary: Binary, watch: Watch, host: string): Promise<void> {
  try {
    const all = await withLateProgress(`Looking for ${host}`, (signal) => watch.fetch({ signal }));
    const playground = findByHost(host, all);
    const step = await nextStep(playground, host);
    if (step === 'nothing') return;
    const title = playground?.title || host;
    await withProgress(step === 'wake' ? `Waking ${title}` : `Opening ${title}`, async (work) => {
      await makeEntriesIfPossible(binary, work);
      if (step === 'wake') await wake(binary, host, playground, work);
    });
  } catch (error) {
    showFailure(error);
  }
}

/** Makes the entries. If that fails, there may still be old ones that serve. */
async function makeEntriesIfPossible(binary: Binary, work: Work): Promise<void> {
  try {
    await makeEntries(binary, work);
  } catch (error) {
    if (work.signal.aborted) throw error;
    showFailure(error);
  }
}

/** Decides what a window on a host needs; `playground` is the one that the host name means. Throws if nothing can help. */
async function nextStep(playground: Playground | undefined, host: string): Promise<'wake' | 'entries' | 'nothing'> {
  const { isId, machine } = parseHost(host);
  // A name of the catalogue that nothing is started from yet is a wish for a new one.
  if (!playground && !isId) return 'wake';
  const now = playground && condition(playground);
  if (!playground || now === 'gone') throw new Failure('failed', `${host} does not exist any more`);
  if (playground.machines.some((one) => one.name === machine && !one.ssh)) {
    throw new Failure('failed', `the platform does not allow SSH access to machine ${machine ?? ''}`, 'open another machine');
  }
  if (now === 'up') return 'entries';
  if (!playground.stoppedOnPurpose || now === 'starting') return 'wake';
  const yes = 'Start It';
  const answer = await ask(`${playground.title || host} was stopped on purpose. Start it again?`, 'Leave It Stopped', yes);
  return answer === yes ? 'wake' : 'nothing';
}
