// The actions on a container that differ from those on a machine.

import * as vscode from 'vscode';
import { ANSWER_MS, type Binary } from '../binary';
import type { ContainerPort } from '../containers';
import { Failure } from '../failure';
import type { Work } from '../progress';
import { enterPort } from './forward';
import type { Inner } from './target';

/** The images whose containers the user has opened. */
const IMAGES = 'playgrounds.trustedImages';

/** Says, once for each image, what an editor trusts. Resolves to false if the user cancels. */
export async function isTrusted(memory: vscode.Memento, { name, image }: Inner): Promise<boolean> {
  const known = memory.get<string[]>(IMAGES) ?? [];
  if (known.includes(image)) return true;
  const yes = 'Open';
  const question =
    `Open ${name} in an editor? An editor trusts what runs in a container as it trusts any remote: a malicious program there ` +
    `could run commands on your computer. You are asked once for the image ${image || 'of this container'}.`;
  if ((await vscode.window.showWarningMessage(question, { modal: true }, yes)) !== yes) return false;
  if (image !== '') await memory.update(IMAGES, [...known, image]);
  return true;
}

/** The folder in which a session in the container begins. Without a shell that could say it, it is the root. */
export async function workingFolder(binary: Binary, { host }: Inner, { signal, report }: Work): Promise<string> {
  try {
    const said = await binary.run(['ssh', host, 'pwd'], { signal, onProgress: report, limit: ANSWER_MS });
    const folder = said.trim();
    return /^\/[^\n]*$/.test(folder) ? folder : '/';
  } catch (error) {
    if (Failure.from(error).kind === 'cancelled') throw error;
    return '/';
  }
}

/** Asks for a port of a container: one that its engine knows, or another. */
export async function selectPort({ name, ports }: Inner, prompt: string): Promise<number | undefined> {
  const tcp = new Map(ports.filter((one) => one.protocol === 'tcp' || one.protocol === '').map((one) => [one.container, one]));
  if (tcp.size === 0) return enterPort(prompt);
  const other = { label: 'Another port...', description: '', port: 0 };
  const items = [...tcp.values()].map((one) => ({ label: String(one.container), description: published(one), port: one.container }));
  const chosen = await vscode.window.showQuickPick([...items, other], { placeHolder: `Select a port of ${name} to forward` });
  return chosen === other ? enterPort(prompt) : chosen?.port;
}

const published = ({ address, machine }: ContainerPort): string => (machine === undefined ? '' : `published at ${address || '*'}:${machine}`);
