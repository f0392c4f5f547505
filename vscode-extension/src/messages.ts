// Messages to the user: questions and failures.

import * as vscode from 'vscode';
import type { Command } from './commands';
import { Failure, type Kind } from './failure';

/** The button that helps with a kind of failure, and its command. */
const HELP: Partial<Record<Kind, [button: string, command: Command]>> = {
  'not-logged-in': ['Log In', 'playgrounds.login'],
  'no-binary': ['Show Installation Steps', 'playgrounds.install'],
  'old-binary': ['Show Installation Steps', 'playgrounds.install'],
};

/** Asks a question and waits for the answer. It is not a notification, because those disappear after a while. */
export function ask(question: string, ...answers: string[]): Thenable<string | undefined> {
  return vscode.window.showQuickPick(answers, { title: question, placeHolder: question, ignoreFocusOut: true });
}

/** Shows a failure, unless the user caused it by cancelling. */
export function showFailure(error: unknown): void {
  const failure = Failure.from(error);
  if (failure.kind === 'cancelled') return;
  const [button, command] = HELP[failure.kind] ?? ['Show Log', 'playgrounds.log'];
  void vscode.window.showErrorMessage(failure.text, button).then((chosen) => {
    if (chosen === button) return vscode.commands.executeCommand(command);
    return undefined;
  });
}

/** Runs an action and shows its failure. */
export function showingFailure(action: () => Promise<void>): void {
  action().catch(showFailure);
}
