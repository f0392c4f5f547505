// Work that takes a while, under a notification that shows the progress and can be cancelled.

import * as vscode from 'vscode';

/** The time after which late progress is shown. Earlier, a notification would only flash. */
const LATE_MS = 1500;
/** The time after which the progress says how long it has taken so far. */
const LONG_MS = 5000;

/** The means of a piece of work to hear of its cancellation and to report its progress. */
export interface Work {
  signal: AbortSignal;
  report: (line: string) => void;
}

/** Works under a notification. Cancelled work rejects like any that fails. */
export async function withProgress<T>(title: string, work: (means: Work) => Promise<T>): Promise<T> {
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
    // Silence is indistinguishable from a hang.
    const clock = setInterval(show, 1000);
    const report = (line: string): void => {
      message = line;
      show();
    };
    try {
      return await work({ signal: abort.signal, report });
    } finally {
      clearInterval(clock);
      cancellation.dispose();
    }
  });
}

/** Works without a notification as long as that takes only a moment. */
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
