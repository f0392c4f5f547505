// The ways into a playground: a window, a terminal, an ssh command, its web page.

import * as vscode from 'vscode';
import { ANSWER_MS } from '../binary';
import { Failure, NAME } from '../failure';
import * as format from '../format';
import { homeOf, openHost, wake, writeEntries } from '../open';
import { readableHost, sshMachines } from '../playground';
import { canEnter } from '../pods';
import { withProgress } from '../progress';
import type { Services } from '../services';
import { ensureSshExtension } from '../sshextension';
import { isTrusted, workingFolder } from './container';
import { type Subject, type Target, containerOf, hostOf, isAny, isOfPod, isThere, isUp, nameOf, sshTarget, target } from './target';

export const open = (services: Services, subject: Subject): Promise<void> => openWindow(services, subject, false);
export const openNew = (services: Services, subject: Subject): Promise<void> => openWindow(services, subject, true);

async function openWindow(services: Services, subject: Subject, newWindow: boolean): Promise<void> {
  const { binary, watch, context } = services;
  // An editor is told of the image that it is to trust.
  const chosen = isOfPod(subject) ? await containerOf(subject, 'open', canEnter) : subject;
  if (isOfPod(subject) && !chosen) return;
  const found = await sshTarget(services, chosen, isThere, 'open');
  if (!found) return;
  const { playground, container } = found;
  await ensureSshExtension(context.extension.id);
  if (container && !(await isTrusted(context.globalState, container))) return;
  const folder = await withProgress(`Opening ${nameOf(found)}`, async (work) => {
    await writeEntries(binary, work);
    await wake(binary, playground.id, playground, work);
    return container ? workingFolder(binary, container, work) : homeOf(userOf(found));
  });
  await watch.catchUp();
  await openHost(context.globalState, hostOf(found), folder, newWindow);
}

/** Shows the containers of a machine. */
export function showContainers({ containers }: Services, subject: Subject): Promise<void> {
  if (typeof subject === 'object' && subject.kind === 'containers') containers.setExpanded(subject.playground, subject.machine, true);
  return Promise.resolve();
}

function userOf({ playground, machine }: Target): string {
  return (machine ?? sshMachines(playground)[0])?.user ?? 'root';
}

export async function terminal(services: Services, subject: Subject): Promise<void> {
  const found = await sshTarget(services, subject, isThere, 'open a terminal in');
  if (found) await openTerminal(services, nameOf(found), ['ssh', hostOf(found)]);
}

/** Opens a terminal with the playground's kubeconfig. The binary removes that file when the shell exits. */
export async function kube(services: Services, subject: Subject): Promise<void> {
  const found = await sshTarget(services, subject, isUp, 'open a terminal for');
  if (!found) return;
  const { playground } = found;
  const shell = vscode.env.shell || 'sh';
  await openTerminal(services, `kube ${format.title(playground)}`, ['kube', playground.id, '--', shell]);
}

/** Runs a command of the binary in a terminal on the user's computer, even in a remote window. */
export async function openTerminal({ binary, context }: Services, name: string, args: string[]): Promise<void> {
  const { file: shellPath, args: shellArgs } = await binary.commandLine(args);
  const iconPath = new vscode.ThemeIcon('vm-running');
  const options: vscode.TerminalOptions = { name, shellPath, shellArgs, iconPath };
  if (vscode.env.uiKind === vscode.UIKind.Desktop) {
    options.cwd = vscode.Uri.file(context.globalStorageUri.fsPath);
    await vscode.workspace.fs.createDirectory(options.cwd);
  }
  vscode.window.createTerminal(options).show();
}

export async function copySsh(services: Services, subject: Subject): Promise<void> {
  const found = await sshTarget(services, subject, isThere, 'copy the SSH command of');
  if (!found) return;
  const host = found.container?.host ?? readableHost(found.playground, found.machine);
  await vscode.env.clipboard.writeText(`ssh ${host}`);
  vscode.window.setStatusBarMessage('SSH command copied to the clipboard', 3000);
}

/** Follows the log of the connections to a playground or a machine, as the binary writes it. */
export async function connectionLog(services: Services, subject: Subject): Promise<void> {
  const found = await sshTarget(services, subject, isThere, 'show the connection log of');
  if (!found) return;
  // An older binary has logs of pods only.
  const help = await services.binary.run(['logs', '--help'], { limit: ANSWER_MS });
  if (/--pod <POD> <PLAYGROUND>/.test(help)) throw new Failure('old-binary', `the installed ${NAME} is too old for this: it keeps no log of connections`, 'update it');
  await openTerminal(services, `log ${nameOf(found)}`, ['logs', hostOf(found), '-f']);
}

export async function page(services: Services, subject: Subject): Promise<void> {
  const found = await target(services, subject, isAny, 'open the web page of');
  const address = found && vscode.Uri.parse(found.playground.learning?.pageUrl || found.playground.pageUrl);
  // Only web addresses are passed to the operating system.
  if (address && /^https?$/.test(address.scheme)) await vscode.env.openExternal(address);
}
