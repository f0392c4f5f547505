// The life cycle of a playground: start, stop, restart, destroy; extend, persist, rename.

import * as vscode from 'vscode';
import * as format from '../format';
import type { Playground } from '../playground';
import { withProgress } from '../progress';
import { forgetHosts } from '../remotesettings';
import type { Services } from '../services';
import { type Subject, isAny, isDown, isThere, isUp, target } from './target';

/** Starts a stopped playground. */
export async function wake(services: Services, subject: Subject): Promise<void> {
  const found = await target(services, subject, isDown, 'start');
  if (found) await run(services, `Starting ${format.title(found.playground)}`, ['start', found.playground.id, '--json']);
}

export async function stop(services: Services, subject: Subject): Promise<void> {
  const found = await target(services, subject, isUp, 'stop');
  if (found) await run(services, `Stopping ${format.title(found.playground)}`, ['stop', found.playground.id, '--json']);
}

export async function restart(services: Services, subject: Subject): Promise<void> {
  const found = await target(services, subject, isThere, 'restart');
  if (found) await run(services, `Restarting ${format.title(found.playground)}`, ['restart', found.playground.id, '--json']);
}

export async function destroy(services: Services, subject: Subject): Promise<void> {
  const found = await target(services, subject, isAny, 'destroy');
  if (!found) return;
  const { id } = found.playground;
  const title = format.title(found.playground);
  const yes = 'Destroy';
  const answer = await vscode.window.showWarningMessage(`Destroy ${title}? Everything in it will be erased.`, { modal: true }, yes);
  if (answer !== yes) return;
  await run(services, `Destroying ${title}`, ['destroy', id, '--yes', '--json']);
  await forgetHosts(id);
}

export async function extend(services: Services, subject: Subject): Promise<void> {
  const found = await target(services, subject, isUp, 'extend');
  if (!found) return;
  const { playground } = found;
  const minutes = await selectMinutes(playground);
  if (minutes === undefined) return;
  await run(services, `Extending ${format.title(playground)}`, ['extend', playground.id, String(minutes), '--json']);
}

async function selectMinutes(playground: Playground): Promise<number | undefined> {
  const items = [30, 60, 120, 240, 480].map((minutes) => ({
    label: minutes < 60 ? `${minutes} minutes` : `${minutes / 60} hour${minutes > 60 ? 's' : ''}`,
    minutes,
  }));
  const end = format.end(playground);
  const placeHolder = `Select how much time to add to ${format.title(playground)}.${end && ` It ${end}.`}`;
  return (await vscode.window.showQuickPick(items, { placeHolder }))?.minutes;
}

export async function persist(services: Services, subject: Subject): Promise<void> {
  const found = await target(services, subject, (one) => isUp(one) && one.persistent !== true, 'make persistent');
  if (!found) return;
  const title = format.title(found.playground);
  await run(services, `Making ${title} persistent`, ['persist', found.playground.id, '--json']);
  vscode.window.setStatusBarMessage(`${title} is persistent now: it will be stopped, not erased, when its time is up`, 5000);
}

export async function rename(services: Services, subject: Subject): Promise<void> {
  const found = await target(services, subject, isAny, 'rename');
  if (!found) return;
  const { playground } = found;
  const title = await enterTitle(playground);
  if (title === undefined) return;
  // A title may begin with a hyphen.
  await run(services, `Renaming ${format.title(playground)}`, ['rename', playground.id, '--json', '--', title.trim()]);
}

function enterTitle(playground: Playground): Thenable<string | undefined> {
  return vscode.window.showInputBox({
    prompt: 'Enter a new title for the playground',
    value: playground.title,
    validateInput: (text) => (text.trim() === '' ? 'The title cannot be empty.' : undefined),
  });
}

/** Runs a command of the binary under a notification. */
async function run({ binary, watch }: Services, title: string, args: string[]): Promise<void> {
  await withProgress(title, ({ signal, report }) => binary.run(args, { signal, onProgress: report }));
  await watch.catchUp();
}
