// The message when a challenge is solved: once for a playground, and only if this window has seen it unsolved.

import * as vscode from 'vscode';
import { showingFailure } from './messages';
import { type Playground, isSolved } from './playground';
import type { Disposable, Watch } from './watch';

export class Solved implements Disposable {
  /** The playgrounds of challenges that this window has seen unsolved, by id, and those whose solution it has reported. */
  private readonly seen = new Map<string, 'unsolved' | 'reported'>();
  private readonly subscription: Disposable;

  constructor(
    private readonly watch: Watch,
    /** Opens the page of a playground. */
    private readonly openPage: (id: string) => Promise<void>,
  ) {
    this.subscription = watch.onDidChange(() => {
      this.check();
    });
  }

  dispose(): void {
    this.subscription.dispose();
  }

  private check(): void {
    if (this.watch.situation.kind !== 'known') return;
    const { playgrounds } = this.watch;
    for (const id of this.seen.keys()) if (!playgrounds.some((one) => one.id === id)) this.seen.delete(id);
    for (const playground of playgrounds) this.look(playground);
  }

  private look(playground: Playground): void {
    const { id, tasks, learning } = playground;
    // A playground that has just been started may not list its tasks yet.
    if (learning?.kind !== 'challenge' || tasks.length === 0) return;
    const before = this.seen.get(id);
    if (!isSolved(playground)) {
      if (before === undefined) this.seen.set(id, 'unsolved');
    } else if (before === 'unsolved') {
      this.seen.set(id, 'reported');
      this.report(playground);
    }
  }
  private report({ id, title, learning }: Playground): void {
    const open = 'Open Page';
    showingFailure(async () => {
      const message = `You have solved the challenge ${learning?.title || title}.`;
      if ((await vscode.window.showInformationMessage(message, open)) === open) await this.openPage(id);
    });
  }
}
