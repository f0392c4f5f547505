// The life cycle of a playground: start, stop, restart, destroy; extend, persist, rename.

import * as vscode from 'vscode';
import * as format from '../format';
import { showingFailure, tellingSetups } from '../messages';
import type { Learning, Playground } from '../playground';
import { withProgress } from '../progress';
import { sayingReady } from '../ready';
import { forgetHosts } from '../remotesettings';
import type { Services } from '../services';
import { open } from './connect';
import { type Subject, isAny, isDown, isThere, isUp, target } from './target';

/** Starts a stopped playground. */
export async function wake(services: Services, subject: Subject): Promise<void> {
  const found = await target(services, subject, isDown, 'start');
  if (found) await bringUp(services, found.playground, 'Starting', 'start');
}

/** Runs a command after which the playground runs, and says so if that took long. */
async function bringUp(services: Services, playground: Playground, doing: string, command: string): Promise<void> {
  const { id } = playground;
  const title = format.title(playground);
  const toOpen = (): void => {
    showingFailure(() => open(services, id));
  };
  await sayingReady(title, () => run(services, `${doing} ${title}`, [command, id, '--json']), toOpen);
}

export async function stop(services: Services, subject: Subject): Promise<void> {
  const found = await target(services, subject, isUp, 'stop');
  if (!found) return;
  const { id, learning } = found.playground;
  const title = format.title(found.playground);
  if (learning && !(await isMeantToEnd(title, learning))) return;
  // An older binary does not know the option.
  const consent = learning ? ['--yes'] : [];
  await run(services, `Stopping ${title}`, ['stop', id, ...consent, '--json']);
}

/** Asks before a stop that ends an attempt at learning content, because that erases its playground. */
async function isMeantToEnd(title: string, { kind }: Learning): Promise<boolean> {
  const yes = 'End Attempt';
  const question = `Stop ${title}? This ends your attempt at the ${kind}, and its playground will be erased.`;
  return (await vscode.window.showWarningMessage(question, { modal: true }, yes)) === yes;
}

export async function restart(services: Services, subject: Subject): Promise<void> {
  const found = await target(services, subject, isThere, 'restart');
  if (found) await bringUp(services, found.playground, 'Restarting', 'restart');
}

export async function destroy(services: Services, subject: Subject): Promise<void> {
  const found = await target(services, subject, isAny, 'destroy');
  if (!found) return;
  const { id, learning } = found.playground;
  const title = format.title(found.playground);
  const yes = 'Destroy';
  const end = learning ? ` This ends your attempt at the ${learning.kind}.` : '';
  const answer = await vscode.window.showWarningMessage(`Destroy ${title}? Everything in it will be erased.${end}`, { modal: true }, yes);
  if (answer !== yes) return;
  await run(services, `Destroying ${title}`, ['destroy', id, '--yes', '--json']);
  await forgetHosts(id);
}

export async function extend(services: Services, subject: Subject): Promise<void> {
  const found = await target(services, subject, isUp, 'extend');
  if (!found) return;
  const { playground } = found;
  const time = await selectTime(playground);
  if (time === undefined) return;
  await run(services, `Extending ${format.title(playground)}`, ['extend', playground.id, time, '--json']);
}

/** Asks how much time to add. Returns it as `extend` takes it: minutes, or what the user has entered. */
async function selectTime(playground: Playground): Promise<string | undefined> {
  const items = [30, 60, 120, 240, 480].map((minutes) => ({
    label: minutes < 60 ? `${minutes} minutes` : `${minutes / 60} hour${minutes > 60 ? 's' : ''}`,
    time: String(minutes),
  }));
  const other = { label: 'Another time...', time: '' };
  const end = format.end(playground);
  const placeHolder = `Select how much time to add to ${format.title(playground)}.${end && ` It ${end}.`}`;
  const selected = await vscode.window.showQuickPick([...items, other], { placeHolder });
  return selected === other ? enterTime() : selected?.time;
}

async function enterTime(): Promise<string | undefined> {
  const entered = await vscode.window.showInputBox({
    prompt: 'Enter how much time to add, or the time of day until which it should run',
    placeHolder: '2h, 90m, until 18:00',
    // The binary reads it. A hyphen would make it an option.
    validateInput: (text) => (/^(\d|until\s+\d)/.test(text.trim()) ? undefined : 'Enter for example 2h, 90m or until 18:00.'),
  });
  return entered?.trim();
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
  await withProgress(title, ({ signal, report }) => binary.run(args, { signal, onProgress: tellingSetups(report) }));
  await watch.catchUp();
}
