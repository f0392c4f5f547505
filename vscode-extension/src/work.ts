// A command of the binary as the user sees it: a notification with progress that can be cancelled, and in the end what
// went wrong.

import * as vscode from 'vscode';
import { Failure } from './binary';

/** Sooner, a notification would only flash. */
const LATE_MS = 1500;

/** What is being done. */
export interface Work {
  signal: AbortSignal;
  /** Shows how far it is. */
  say: (line: string) => void;
}

/** Does it under a notification. A cancelled one rejects as any other failure does. */
export async function withProgress<T>(title: string, work: (how: Work) => Promise<T>): Promise<T> {
  const options = { location: vscode.ProgressLocation.Notification, title, cancellable: true };
  return vscode.window.withProgress(options, async (progress, cancelled) => {
    const began = Date.now();
    const abort = new AbortController();
    const asked = cancelled.onCancellationRequested(() => {
      abort.abort();
    });
    let message = '';
    const report = (): void => {
      const seconds = Math.floor((Date.now() - began) / 1000);
      progress.report({ message: seconds >= 5 ? `${message} (${seconds}s)`.trimStart() : message });
    };
    // Silence is indistinguishable from a hang.
    const clock = setInterval(report, 1000);
    try {
      return await work({
        signal: abort.signal,
        say: (line) => {
          message = line;
          report();
        },
      });
    } finally {
      clearInterval(clock);
      asked.dispose();
    }
  });
}

/** As a rule this is done in a moment; under a notification only when it takes longer. */
export async function withLateProgress<T>(title: string, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const abort = new AbortController();
  const result = work(abort.signal);
  const done = result.then(() => true, () => true);
  const late = new Promise<boolean>((resolve) => setTimeout(resolve, LATE_MS, false));
  if (!(await Promise.race([done, late]))) {
    await withProgress(title, async ({ signal }) => {
      signal.addEventListener('abort', () => { abort.abort(); });
      await done;
    });
  }
  return result;
}

/** Puts a question whose answer is waited for. Not as a notification: that hides after a while, unanswered. */
export function question(text: string, ...answers: string[]): Thenable<string | undefined> {
  return vscode.window.showQuickPick(answers, { title: text, placeHolder: text, ignoreFocusOut: true });
}

/** Tells a failure, with what helps. That the user cancelled is no news. */
export function tell(error: unknown): void {
  const failure = Failure.from(error);
  const helps: Partial<Record<Failure['kind'], [title: string, command: string]>> = {
    'not-logged-in': ['Log In', 'playgrounds.login'],
    'no-binary': ['How to Install It', 'playgrounds.install'],
    'old-binary': ['How to Install It', 'playgrounds.install'],
  };
  if (failure.kind === 'cancelled') return;
  const [title, command] = helps[failure.kind] ?? ['Show Log', 'playgrounds.log'];
  const hint = failure.hint === '' ? '' : ` To help: ${failure.hint}.`;
  void vscode.window.showErrorMessage(`${sentence(failure.message)}${hint}`, title).then((chosen) => {
    if (chosen === title) return vscode.commands.executeCommand(command);
    return undefined;
  });
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}
