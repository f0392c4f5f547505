// The ports of a playground: open, forward, expose.

import * as vscode from 'vscode';
import { Failure } from '../failure';
import * as format from '../format';
import { readExposed } from '../json';
import type { PortForward } from '../portforwards';
import type { Exposure, Port } from '../ports';
import { withProgress } from '../progress';
import type { Services } from '../services';
import type { PortNode, ShellNode } from '../tree';
import { enterPort, openInBrowser } from './forward';
import { type Subject, anyMachineOf, isUp, target } from './target';

/** Opens a port: its address on the web, else on this computer, where it is forwarded first if it has none. */
export async function openPort(services: Services, { playground, port, own }: PortNode): Promise<void> {
  const url = port.exposures[0]?.url;
  if (url !== undefined) {
    await openWeb(url);
    return;
  }
  const local = localPort(port, own) ?? (await forwardTo(services, playground.id, port)).localPort;
  if (local !== undefined) await openInBrowser(local, port.protocol === 'https' ? 'https' : 'http');
}

export const openShell = ({ shell }: ShellNode): Promise<void> => openWeb(shell.url);

/** Opens a web address. No others are passed to the operating system. */
async function openWeb(url: string): Promise<void> {
  const address = vscode.Uri.parse(url);
  if (/^https?$/.test(address.scheme)) await vscode.env.openExternal(address);
}

/** The local port that leads to a port, on the loopback interface or on all. */
function localPort(port: Port, own: PortForward | undefined): number | undefined {
  if (own?.localPort !== undefined) return own.localPort;
  const [found] = port.forwards.flatMap(({ local }) => /^(?:127\.0\.0\.1|0\.0\.0\.0|localhost):(\d+)$/.exec(local)?.[1] ?? []);
  return found === undefined ? undefined : Number(found);
}

function forwardTo({ forwards }: Services, id: string, { machine, number }: Port): Promise<PortForward> {
  return withProgress(`Forwarding port ${number} of ${machine}`, (work) => forwards.add(id, machine, number, work));
}

export async function forwardPort(services: Services, subject: Subject): Promise<void> {
  if (!isPort(subject)) return;
  const { localPort: local = 0 } = await forwardTo(services, subject.playground.id, subject.port);
  vscode.window.setStatusBarMessage(`Port ${subject.port.number} of ${subject.port.machine} is forwarded to localhost:${local}`, 5000);
}

export async function copyAddress(_: Services, subject: Subject): Promise<void> {
  const address = addressOf(subject);
  if (address === undefined) return;
  await vscode.env.clipboard.writeText(address);
  vscode.window.setStatusBarMessage(`${address} copied to the clipboard`, 3000);
}

function addressOf(subject: Subject): string | undefined {
  if (isShell(subject)) return subject.shell.url;
  if (!isPort(subject)) return undefined;
  const { port, own } = subject;
  const local = own?.localPort === undefined ? port.forwards[0]?.local : `localhost:${own.localPort}`;
  return port.exposures[0]?.url ?? local;
}

export const expose = (services: Services, subject: Subject): Promise<void> => exposeTo(services, subject, false);
export const exposePublicly = (services: Services, subject: Subject): Promise<void> => exposeTo(services, subject, true);

async function exposeTo(services: Services, subject: Subject, isPublic: boolean): Promise<void> {
  const chosen = isPort(subject) ? subject : await choosePort(services, subject);
  if (!chosen) return;
  const { playground, port } = chosen;
  const name = `port ${port.number} of ${port.machine}`;
  if (isPublic && !(await isMeantForEveryone(`${name} (${format.title(playground)})`))) return;
  const options = [...(isPublic ? ['--public', '--yes'] : []), ...(port.protocol === 'https' ? ['--tls'] : [])];
  const args = ['expose', playground.id, String(port.number), '--machine', port.machine, ...options, '--json'];
  const exposure = await withProgress(`Exposing ${name}`, ({ signal, report }) =>
    services.binary.ask(args, readExposed, { signal, onProgress: report }),
  );
  await services.ports.refresh(playground.id);
  void announce(port, exposure);
}

/** Asks for a port, which need not listen yet. */
async function choosePort(services: Services, subject: Subject): Promise<Pick<PortNode, 'playground' | 'port'> | undefined> {
  const found = await target(services, subject, isUp, 'expose a port of');
  const machine = found && (await anyMachineOf(found));
  if (!machine) return undefined;
  const number = await enterPort(`Enter the port of ${machine.name} to expose`);
  if (number === undefined) return undefined;
  const known = services.ports.of(found.playground.id).list?.ports.find((one) => one.machine === machine.name && one.number === number);
  const unknown: Port = {
    machine: machine.name, number, protocol: undefined, listening: undefined, loopbackOnly: false, exposures: [], forwards: [], saved: [],
  };
  return { playground: found.playground, port: known ?? unknown };
}

async function isMeantForEveryone(name: string): Promise<boolean> {
  const yes = 'Expose Publicly';
  const question = `Expose ${name} publicly? Everyone who knows its address can then use it, without a login.`;
  return (await vscode.window.showWarningMessage(question, { modal: true }, yes)) === yes;
}

async function announce(port: Port, { url, access }: Exposure): Promise<void> {
  const readers = access === 'public' ? 'for everyone' : 'for you, while you are logged in in the browser';
  const advice = port.loopbackOnly ? ' It listens on the loopback interface only: let its server listen on all interfaces (0.0.0.0).' : '';
  const [open, copy] = ['Open', 'Copy Address'];
  const message = `Port ${port.number} of ${port.machine} is exposed ${readers}: ${url}${advice}`;
  const answer = await vscode.window.showInformationMessage(message, open, copy);
  if (answer === open) await openWeb(url);
  if (answer === copy) await vscode.env.clipboard.writeText(url);
}

/** Ends the exposure of a port or a shell. */
export async function unexpose({ binary, ports }: Services, subject: Subject): Promise<void> {
  if (!isPort(subject) && !isShell(subject)) return;
  const { id } = subject.playground;
  const [name, exposures] = isPort(subject)
    ? [`port ${subject.port.number} of ${subject.port.machine}`, subject.port.exposures]
    : [`the web terminal of ${subject.shell.user}`, [subject.shell]];
  if (exposures.some((one) => one.id === '')) throw new Failure('bad-output', `${name} has no id`, 'see the log');
  await withProgress(`Hiding ${name}`, async ({ signal, report }) => {
    for (const one of exposures) await binary.run(['unexpose', id, one.id, '--json'], { signal, onProgress: report });
  });
  await ports.refresh(id);
}

/** Scans the ports that are on the screen. */
export const scan = ({ ports }: Services, subject: Subject): Promise<void> =>
  ports.refresh(typeof subject === 'object' ? subject.playground.id : subject);

const isPort = (subject: Subject): subject is PortNode => typeof subject === 'object' && subject.kind === 'port';
const isShell = (subject: Subject): subject is ShellNode => typeof subject === 'object' && subject.kind === 'shell';
