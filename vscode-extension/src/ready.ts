// The message that a slow wake has finished, for a user who has gone to another window meanwhile.

import * as vscode from 'vscode';

/** The time after which a user no longer watches the progress. */
const SLOW_MS = 20_000;

/** Runs a wake. If it was slow and the window is not in front at its end, says that `title` is ready, with a button for `open`. */
export async function sayingReady<T>(title: string, run: () => Promise<T>, open?: () => void, slowMs = SLOW_MS): Promise<T> {
  const began = Date.now();
  const result = await run();
  if (Date.now() - began >= slowMs && !vscode.window.state.focused) {
    const button = 'Open';
    void vscode.window.showInformationMessage(`${title} is ready.`, ...(open ? [button] : [])).then((chosen) => {
      if (chosen === button) open?.();
    });
  }
  return result;
}
