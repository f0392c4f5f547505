// The account and the installation: login, doctor, log, settings.

import * as vscode from 'vscode';
import { type Manifest, findDownload } from '../binary/download';
import { WALKTHROUGH } from '../commands';
import { writeEntries } from '../open';
import { withProgress } from '../progress';
import type { Services } from '../services';

export async function refresh({ watch, ports, containers, pods }: Services): Promise<void> {
  containers.refresh();
  pods.refresh();
  await Promise.all([watch.refresh(), ports.refresh()]);
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

/** Writes the report of `doctor` to the log. The user reads it, so it is text, and it counts whatever the exit status is. */
export async function doctor({ binary, log }: Services): Promise<void> {
  const report = await withProgress('Running doctor', ({ signal, report }) =>
    binary.run(['doctor'], { signal, onProgress: report, anyExit: true }),
  );
  log.info(`doctor\n${report}`);
  log.show();
}

/** Downloads the program, unless one is installed. Only the copy of this extension is replaced. */
export async function download({ binary, watch, context }: Services): Promise<void> {
  const found = await binary.find().catch(() => undefined);
  if (found !== undefined && !binary.isCopy(found)) {
    void vscode.window.showInformationMessage(`The program is installed already: ${found}`);
    return;
  }
  const from = findDownload(context.extension.packageJSON as Manifest, process.platform, process.arch);
  await withProgress(`Downloading version ${from.version} from ${new URL(from.folder).host}`, (work) => binary.download(from, work));
  await watch.refresh();
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
