// Two settings of Remote-SSH that help: offered once, and written by the editor itself, which keeps comments.

import * as vscode from 'vscode';
import { ask } from './messages';

const ANSWER = 'playgrounds.remoteSshSettings';
/** In seconds: a cold boot can take 20 minutes, and the binary waits 25. */
export const CONNECT_TIMEOUT = 1800;

function section(): vscode.WorkspaceConfiguration {
  return vscode.workspace.getConfiguration('remote.SSH');
}

/** Whether an extension that has these settings is installed. */
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

/** Sets what is missing for a host, if the user has agreed to it once; asks if it was never asked. */
export async function offerSettings(memory: vscode.Memento, host: string): Promise<void> {
  if (!needsTimeout() && !needsPlatform(host)) return;
  if (!(await isAgreed(memory))) return;
  const everywhere = vscode.ConfigurationTarget.Global;
  if (needsTimeout()) await section().update('connectTimeout', CONNECT_TIMEOUT, everywhere);
  if (needsPlatform(host)) await section().update('remotePlatform', { ...platforms(), [host]: 'linux' }, everywhere);
}

/** The user's answer, which is remembered. Without one it is asked again another time. */
async function isAgreed(memory: vscode.Memento): Promise<boolean> {
  const known = memory.get<boolean>(ANSWER);
  if (known !== undefined) return known;
  const yes = 'Set Them';
  const no = 'Leave Them';
  const chosen = await ask(
    `Let Remote-SSH wait for machines that take long to boot (remote.SSH.connectTimeout: ${CONNECT_TIMEOUT}), and tell it that playgrounds are Linux (remote.SSH.remotePlatform)?`,
    yes,
    no,
  );
  if (chosen === undefined) return false;
  await memory.update(ANSWER, chosen === yes);
  return chosen === yes;
}

/** A playground is no more: what was set for its hosts goes. */
export async function forgetHosts(id: string): Promise<void> {
  const kept = Object.entries(platforms()).filter(([host]) => !host.startsWith(`playground-${id}`));
  if (kept.length === Object.keys(platforms()).length) return;
  await section().update('remotePlatform', Object.fromEntries(kept), vscode.ConfigurationTarget.Global);
}
