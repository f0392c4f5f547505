// Two settings of Remote-SSH or its like that the extension offers to change. VS Code writes them, so that comments in the file stay.

import * as vscode from 'vscode';
import { ask } from './messages';

const ANSWER = 'playgrounds.remoteSshSettings';
/** The value for `remote.SSH.connectTimeout`, in seconds. A cold boot can take 20 minutes, and the binary waits 25. */
export const CONNECT_TIMEOUT = 1800;

/**
 * The sections of the extensions that connect by SSH: Remote-SSH, Cursor's and Open Remote - SSH have the first, Devin and
 * Windsurf the next two, Antigravity the last.
 * https://github.com/coder/vscode-coder/blob/main/src/remote/sshExtension.ts has the same list.
 */
const SECTIONS = ['remote.SSH', 'remote.devinSSH', 'remote.windsurfSSH', 'remote.antigravitySSH'];

/** The name of the section that this editor has: the first one that declares a setting. */
function sectionName(): string {
  const declares = (name: string): boolean => {
    const settings = vscode.workspace.getConfiguration(name);
    return ['connectTimeout', 'configFile', 'remotePlatform'].some((key) => settings.inspect(key)?.defaultValue !== undefined);
  };
  return SECTIONS.find(declares) ?? 'remote.SSH';
}

const section = (): vscode.WorkspaceConfiguration => vscode.workspace.getConfiguration(sectionName());

/** The ssh configuration that the editor reads, if it is not the usual one. */
export const configFile = (): string => section().inspect<string>('configFile')?.globalValue ?? '';

/** Returns true if an installed extension declares this setting. */
function exists(key: string): boolean {
  return section().inspect(key)?.defaultValue !== undefined;
}

function platforms(): Record<string, string> {
  return section().inspect<Record<string, string>>('remotePlatform')?.globalValue ?? {};
}

function needsTimeout(): boolean {
  return exists('connectTimeout') && (section().get<number>('connectTimeout') ?? 0) < CONNECT_TIMEOUT;
}

function needsPlatform(host: string): boolean {
  return exists('remotePlatform') && platforms()[host] === undefined;
}

/** Changes the settings for a host, if the user agrees. An answer is remembered for all hosts. */
export async function offerSettings(memory: vscode.Memento, host: string): Promise<void> {
  if (!needsTimeout() && !needsPlatform(host)) return;
  if (!(await isAgreed(memory))) return;
  const everywhere = vscode.ConfigurationTarget.Global;
  if (needsTimeout()) await section().update('connectTimeout', CONNECT_TIMEOUT, everywhere);
  if (needsPlatform(host)) await section().update('remotePlatform', { ...platforms(), [host]: 'linux' }, everywhere);
}

/** Asks for the user's consent. A dismissed question is asked again the next time. */
async function isAgreed(memory: vscode.Memento): Promise<boolean> {
  const known = memory.get<boolean>(ANSWER);
  if (known !== undefined) return known;
  const yes = 'Change Settings';
  const no = 'Keep Settings';
  const name = sectionName();
  const chosen = await ask(
    `Change two settings of Remote-SSH, so that it waits for machines that boot slowly (${name}.connectTimeout: ${CONNECT_TIMEOUT}) and knows that playgrounds run Linux (${name}.remotePlatform)?`,
    yes,
    no,
  );
  if (chosen === undefined) return false;
  await memory.update(ANSWER, chosen === yes);
  return chosen === yes;
}

/** Removes the settings for the hosts of a playground that was destroyed. */
export async function forgetHosts(id: string): Promise<void> {
  const kept = Object.entries(platforms()).filter(([host]) => !host.startsWith(`playground-${id}`));
  if (kept.length === Object.keys(platforms()).length) return;
  await section().update('remotePlatform', Object.fromEntries(kept), vscode.ConfigurationTarget.Global);
}
