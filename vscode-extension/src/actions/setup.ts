// The account and the installation: login, doctor, log, settings.

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import * as vscode from 'vscode';
import { ANSWER_MS } from '../binary';
import { type Manifest, findDownload } from '../binary/download';
import { STEPS, WALKTHROUGH } from '../commands';
import { Failure } from '../failure';
import * as format from '../format';
import { readAccount } from '../json';
import { writeEntries } from '../open';
import { withProgress } from '../progress';
import type { Services } from '../services';

export async function refresh({ watch, ports, containers, pods }: Services): Promise<void> {
  containers.refresh();
  pods.refresh();
  await Promise.all([watch.refresh(), ports.refresh()]);
}

export const filter = ({ filter: it }: Services): Promise<void> => it.ask();

export function clearFilter({ filter: it }: Services): Promise<void> {
  it.set('');
  return Promise.resolve();
}

export async function login({ binary, watch }: Services): Promise<void> {
  await withProgress('Confirm the login in your browser', ({ signal, report }) => {
    const onProgress = (line: string): void => {
      report(line.trim());
      // The program opens the browser of its own computer, and in a browser that may be another one.
      const page = /^\s*(https?:\/\/\S+)\s*$/.exec(line)?.[1];
      if (page !== undefined && vscode.env.uiKind === vscode.UIKind.Web) void vscode.env.openExternal(vscode.Uri.parse(page));
    };
    return binary.run(['login', '--json'], { signal, onProgress });
  });
  await watch.refresh();
}

/** Logs out, after a question. Playgrounds go on, and so do connections that are open. */
export async function logout({ binary, watch }: Services): Promise<void> {
  const yes = 'Log Out';
  const question = 'Log out of iximiuz Labs on this computer? labctl and your other editors are logged out, too. Your playgrounds stay as they are.';
  if ((await vscode.window.showWarningMessage(question, { modal: true }, yes)) !== yes) return;
  await binary.run(['logout', '--json'], { limit: ANSWER_MS });
  await watch.refresh().catch(() => undefined);
}

/** Shows who is logged in, where, and the account's plan. */
export async function account(services: Services): Promise<void> {
  const who = await services.binary.ask(['whoami', '--json'], readAccount);
  const out = 'Log Out';
  if ((await vscode.window.showInformationMessage(format.account(who), out)) === out) await logout(services);
}

/** Opens the full report of `doctor`, without secrets, as a new document that the user can read, save and send. */
export async function report({ binary }: Services): Promise<void> {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'playgrounds-'));
  try {
    const file = path.join(folder, 'report.txt');
    const failure = await withProgress('Running doctor', ({ signal, report }) =>
      binary.run(['doctor', '--report', file, '--json'], { signal, onProgress: report }),
    ).then(() => undefined, (error: unknown) => Failure.from(error));
    if (failure?.kind === 'cancelled') throw failure;
    // A report of what is wrong comes with a failure. Without a report the failure is another one.
    const content = await readFile(file, 'utf8').catch((error: unknown) => {
      throw failure ?? Failure.from(error);
    });
    await vscode.window.showTextDocument(await vscode.workspace.openTextDocument({ content, language: 'plaintext' }));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Writes the report of `doctor` to the log. The user reads it, so it is text, and it counts whatever the exit status is. */
export async function doctor({ binary, log }: Services): Promise<void> {
  const report = await withProgress('Running doctor', ({ signal, report }) =>
    binary.run(['doctor'], { signal, onProgress: report, anyExit: true }),
  );
  log.info(`doctor\n${report}`);
  log.show();
}

/** Downloads the program, unless another one would be used instead of it. Only the copy of this extension is replaced. */
export async function download({ binary, watch, context }: Services): Promise<void> {
  const found = await binary.find().catch(() => undefined);
  if (found === undefined && binary.isConfigured) {
    throw new Failure('failed', 'the setting playgrounds.binary names no program, and a downloaded one would not be used', 'correct or clear it');
  }
  if (found !== undefined && !binary.isDownload(found)) {
    await binary.usable().catch((error: unknown) => {
      throw withoutDownload(Failure.from(error));
    });
    void vscode.window.showInformationMessage(`The program is installed already: ${found}`);
  } else {
    const from = findDownload(context.extension.packageJSON as Manifest, process.platform, process.arch);
    await withProgress(`Downloading version ${from.version} from ${new URL(from.folder).host}`, (work) => binary.download(from, work));
  }
  void vscode.commands.executeCommand('setContext', STEPS.hasProgram, true);
  // The view shows a failure, such as that of a login that is yet to come.
  await watch.refresh().catch(() => undefined);
}

/** The failure of a program that is too old and comes before a downloaded one, with other help than a download. */
function withoutDownload(failure: Failure): Failure {
  if (failure.kind !== 'old-binary') return failure;
  return new Failure('no-release', failure.message, 'update it, or remove it and download again, because an installed program comes first');
}

/** Opens the walkthrough. VS Code opens it by itself after an installation from its list of extensions. */
export async function walkthrough({ context }: Services): Promise<void> {
  await vscode.commands.executeCommand('workbench.action.openWalkthrough', `${context.extension.id}#${WALKTHROUGH}`, false);
}

/** Adds the playgrounds to the ssh configuration, as each opening of a playground does. */
export async function configureSsh({ binary }: Services): Promise<void> {
  await withProgress('Adding your playgrounds to your SSH configuration', (work) => writeEntries(binary, work));
  vscode.window.setStatusBarMessage('Your playgrounds are in your SSH configuration', 5000);
}

export function showLog({ log }: Services): Promise<void> {
  log.show();
  return Promise.resolve();
}

export async function install({ context }: Services): Promise<void> {
  const readme = vscode.Uri.joinPath(context.extensionUri, 'README.md').with({ fragment: 'installation' });
  await vscode.commands.executeCommand('markdown.showPreview', readme);
}

export async function settings({ context }: Services): Promise<void> {
  await vscode.commands.executeCommand('workbench.action.openSettings', `@ext:${context.extension.id}`);
}
