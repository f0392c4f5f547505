// The filter of the view. VS Code's own search in a tree looks at the labels of the lines that are expanded; this one also finds
// states, catalogue names and the machines of collapsed playgrounds, and hides the rest.

import * as vscode from 'vscode';
import { FILTERED } from './commands';
import * as format from './format';
import type { Playground } from './playground';
import type { Disposable } from './watch';

export class Filter {
  private kept = '';
  private words: string[] = [];
  private readonly listeners = new Set<() => void>();

  /** Says what is shown; empty without a filter. */
  get message(): string {
    return this.kept === '' ? '' : `Filter: ${this.kept}`;
  }

  /** True for a playground with each of the words in its names, its state or its machines. */
  suits(playground: Playground): boolean {
    const { id, alias, template, machines } = playground;
    const names = [format.title(playground), template.name, template.title, id, alias, format.state(playground), ...machines.map((one) => one.name)];
    const text = names.join('\n').toLowerCase();
    return this.words.every((word) => text.includes(word));
  }

  onDidChange(listener: () => void): Disposable {
    this.listeners.add(listener);
    return { dispose: () => this.listeners.delete(listener) };
  }

  /** Asks for the words. The tree follows as the user types; an empty text shows all, and Escape what was shown before. */
  async ask(): Promise<void> {
    const entered = await vscode.window.showInputBox({
      prompt: 'Enter words of titles, names, states or machines',
      placeHolder: 'k3s running',
      value: this.kept,
      validateInput: (text) => {
        this.look(text);
        return undefined;
      },
    });
    this.set(entered ?? this.kept);
  }

  set(text: string): void {
    this.kept = text.trim();
    void vscode.commands.executeCommand('setContext', FILTERED, this.kept !== '');
    this.look(text);
  }

  private look(text: string): void {
    this.words = text.toLowerCase().split(/\s+/).filter((word) => word !== '');
    for (const listener of this.listeners) listener();
  }
}
