// Port-forwards: add one, open it in the browser, stop it.

import * as http from 'node:http';
import * as vscode from 'vscode';
import { isPodHost } from '../authority';
import { withProgress } from '../progress';
import type { Services } from '../services';
import { selectPort } from './container';
import { openPort, openShell } from './ports';
import { type Subject, isUp, machineOf, sshTarget } from './target';

/** The time limit of an HTTP request to a local port. */
const HTTP_MS = 2_000;

/** Forwards a port of a machine or a container and, if an HTTP server answers there, opens it in the browser. */
export async function forward(services: Services, subject: Subject): Promise<void> {
  const found = await sshTarget(services, subject, isUp, 'forward a port from');
  const machine = found && (await machineOf(found));
  if (!machine) return;
  const { container } = found;
  const { name } = container ?? machine;
  const prompt = `Enter the port of ${name} to forward`;
  const port = await (container ? selectPort(container, prompt) : enterPort(prompt));
  if (port === undefined) return;
  const { localPort = 0 } = await withProgress(`Forwarding port ${port} of ${name}`, (work) =>
    services.forwards.add(found.playground.id, machine.name, port, work, container && { host: isPodHost(container.host) ? container.host : machine.host, label: container.label }),
  );
  if (await answersHttp(localPort)) await openInBrowser(localPort);
  else void vscode.window.showInformationMessage(`Port ${port} of ${name} is forwarded to localhost:${localPort}.`);
}

export async function enterPort(prompt: string): Promise<number | undefined> {
  const entered = await vscode.window.showInputBox({
    prompt,
    placeHolder: '8080',
    validateInput: (text) => (isPort(text) ? undefined : 'Enter a number from 1 to 65535.'),
  });
  return entered === undefined ? undefined : Number(entered);
}

export async function browse(services: Services, subject: Subject): Promise<void> {
  if (typeof subject !== 'object') return;
  if (subject.kind === 'forward') await openInBrowser(subject.forward.localPort ?? 0);
  if (subject.kind === 'port') await openPort(services, subject);
  if (subject.kind === 'shell') await openShell(subject);
}

export function unforward({ forwards }: Services, subject: Subject): Promise<void> {
  if (typeof subject === 'object' && subject.kind === 'forward') forwards.remove(subject.forward);
  if (typeof subject === 'object' && subject.kind === 'port' && subject.own) forwards.remove(subject.own);
  return Promise.resolve();
}

const isPort = (text: string): boolean => /^\d{1,5}$/.test(text) && Number(text) >= 1 && Number(text) <= 65_535;

/** Opens a local port in the browser. In a remote window `env.openExternal` would add a tunnel of VS Code's own. */
export async function openInBrowser(port: number, scheme: 'http' | 'https' = 'http'): Promise<void> {
  await vscode.commands.executeCommand('vscode.open', vscode.Uri.parse(`${scheme}://127.0.0.1:${port}`));
}

/** Resolves to true if an HTTP server answers on a local port. */
function answersHttp(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const request = http.get({ host: '127.0.0.1', port, timeout: HTTP_MS }, (answer) => {
      answer.destroy();
      resolve(true);
    });
    request.on('timeout', () => request.destroy());
    request.on('error', () => {
      resolve(false);
    });
  });
}
