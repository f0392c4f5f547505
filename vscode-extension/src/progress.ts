// Notifications with progress and a Cancel button.

import * as vscode from 'vscode';

/** The delay of a late notification. Work that is done sooner would only make it flash. */
const LATE_MS = 1500;
/** The time after which the notification also shows the elapsed time. */
const LONG_MS = 5000;

/** The controls of work in progress. */
export interface Work {
  signal: AbortSignal;
  report: (line: string) => void;
}

/** Runs work under a notification. */
export async function withProgress<T>(title: string, run: (work: Work) => Promise<T>): Promise<T> {
  const options = { location: vscode.ProgressLocation.Notification, title, cancellable: true };
  return vscode.window.withProgress(options, async (progress, token) => {
    const began = Date.now();
    const abort = new AbortController();
    const cancellation = token.onCancellationRequested(() => {
      abort.abort();
    });
    let message = '';
    const show = (): void => {
      const elapsed = Date.now() - began;
      progress.report({ message: elapsed >= LONG_MS ? `${message} (${Math.floor(elapsed / 1000)}s)`.trimStart() : message });
    };
    // Without the elapsed time a long wait looks like a hang.
    const clock = setInterval(show, 1000);
    const report = (line: string): void => {
      message = line;
      show();
    };
    try {
      return await run({ signal: abort.signal, report });
    } finally {
      clearInterval(clock);
      cancellation.dispose();
    }
  });
}

/** Runs work and shows a notification only if it takes longer than {@link LATE_MS}. */
export async function withLateProgress<T>(title: string, run: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const abort = new AbortController();
  const result = run(abort.signal);
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
