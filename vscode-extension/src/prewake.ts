// The wake of a window's playground, before Remote-SSH connects. VS Code waits for this extension's activation without a time
// limit, and only then lets Remote-SSH resolve the host. A window that VS Code restores must not undo the user's deliberate
// stop, so the user is asked.

import * as vscode from 'vscode';
import { findByHost, parseHost, withoutContainer } from './authority';
import type { Binary } from './binary';
import { Failure } from './failure';
import { ask, showFailure } from './messages';
import { wake, writeEntries } from './open';
import { type Playground, condition } from './playground';
import { type Work, withLateProgress, withProgress } from './progress';
import { sayingReady } from './ready';
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

/**
 * Wakes the playground of a window and shows the progress. Never rejects: it shows a failure and lets Remote-SSH connect anyway.
 * `remembered` may come from an old list. `hostNow` reads the host by the new one: a readable name may belong to another playground
 * by now, or be a host of the user's. Returns the host, or undefined if it is no playground's.
 */
export async function prewake(
  binary: Binary, watch: Watch, remembered: string, hostNow: (all: Playground[]) => string | undefined = () => remembered,
): Promise<string | undefined> {
  let host: string | undefined = remembered;
  try {
    const all = await withLateProgress(`Looking for ${remembered}`, (signal) => watch.fetch({ signal }));
    const now = (host = hostNow(all));
    if (now === undefined) return undefined;
    const playground = findByHost(now, all);
    const step = await nextStep(playground, now);
    if (step === 'nothing') return now;
    const title = playground?.title || now;
    const enter = async (work: Work): Promise<void> => {
      await tryToWriteEntries(binary, work);
      if (step === 'wake') await wake(binary, withoutContainer(now), playground, work);
    };
    // The window opens by itself then.
    await sayingReady(title, () => withProgress(step === 'wake' ? `Waking ${title}` : `Opening ${title}`, enter));
  } catch (error) {
    showFailure(error);
  }
  return host;
}

/** Writes the entries. If that fails, it shows the failure and goes on, because older entries may still work. */
async function tryToWriteEntries(binary: Binary, work: Work): Promise<void> {
  try {
    await writeEntries(binary, work);
  } catch (error) {
    if (work.signal.aborted) throw error;
    showFailure(error);
  }
}

/** Decides what a window needs before it connects to `host`, the name of `playground`. Throws if it cannot connect. */
async function nextStep(playground: Playground | undefined, host: string): Promise<'wake' | 'entries' | 'nothing'> {
  const { isId, machine } = parseHost(host);
  // A catalogue name without a playground: the binary starts a new one.
  if (!playground && !isId) return 'wake';
  const now = playground && condition(playground);
  if (!playground || now === 'gone') throw new Failure('failed', `${host} no longer exists`);
  if (playground.machines.some((one) => one.name === machine && !one.ssh)) {
    throw new Failure('failed', `the platform does not allow SSH access to machine ${machine ?? ''}`, 'open another machine');
  }
  if (now === 'up') return 'entries';
  if (!playground.stoppedOnPurpose || now === 'starting') return 'wake';
  const yes = 'Start';
  const answer = await ask(`${playground.title || host} was stopped on purpose. Start it?`, 'Leave Stopped', yes);
  return answer === yes ? 'wake' : 'nothing';
}
