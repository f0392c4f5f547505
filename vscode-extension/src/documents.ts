// Read-only documents about containers of pods: their spec and status, and the logs of those that do not run.

import * as vscode from 'vscode';
import { isPodHost } from './authority';
import type { Binary, Run } from './binary';
import { Failure } from './failure';
import { podOption } from './pods';

export const SCHEME = 'playgrounds';

/** The number of lines of a log. */
const LINES = 10_000;

/** The command for a document of each kind. The kind is also the ending of its name, by which VS Code knows the language. */
const COMMANDS = {
  json: (id: string, pod: string) => ['pods', id, '--of', pod],
  log: (id: string, pod: string) => ['logs', id, '--pod', pod, '--tail', String(LINES)],
};

export class Documents implements vscode.TextDocumentContentProvider {
  private readonly changed = new vscode.EventEmitter<vscode.Uri>();
  readonly onDidChange = this.changed.event;
  /** What has just been read, until VS Code asks for it. */
  private readonly fresh = new Map<string, string>();

  constructor(private readonly binary: Binary) {}

  /** Reads a document about the container with this host name, and shows it. Throws if it cannot be read. */
  async show(host: string, kind: keyof typeof COMMANDS, signal: AbortSignal): Promise<void> {
    const [playground = '', , namespace = '', ...names] = host.split('.');
    const uri = vscode.Uri.from({ scheme: SCHEME, authority: playground, path: `/${namespace}/${names.join('.')}.${kind}` });
    this.fresh.set(String(uri), await this.read(uri, { signal }));
    this.changed.fire(uri);
    await vscode.window.showTextDocument(await vscode.workspace.openTextDocument(uri), { preview: true });
  }

  provideTextDocumentContent(uri: vscode.Uri): string | Promise<string> {
    const known = this.fresh.get(String(uri));
    this.fresh.delete(String(uri));
    return known ?? this.read(uri);
  }

  dispose(): void {
    this.changed.dispose();
  }

  /** An address may come from elsewhere, so each part of it is checked. */
  private read(uri: vscode.Uri, options: Run = {}): Promise<string> {
    const [, playground = '', namespace = '', names = '', kind] = /^playgrounds:\/\/([^/]+)\/([^/]+)\/([^/]+)\.(json|log)$/.exec(String(uri)) ?? [];
    const host = `${playground}.pod.${namespace}.${names}`;
    if (!isPodHost(host)) return Promise.reject(new Failure('failed', 'no container has this document'));
    const id = playground.replace(/^playground-/, '');
    return this.binary.run(COMMANDS[kind === 'log' ? 'log' : 'json'](id, podOption(host)), options);
  }
}
