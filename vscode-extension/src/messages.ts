// Messages to the user: questions, and failures with what helps.

import * as vscode from 'vscode';
import type { Command } from './commands';
import { Failure, type Kind } from './failure';

/** The button of a message about a failure, and its command. */
const HELP: Partial<Record<Kind, [button: string, command: Command]>> = {
  'not-logged-in': ['Log In', 'playgrounds.login'],
  'no-binary': ['How to Install It', 'playgrounds.install'],
  'old-binary': ['How to Install It', 'playgrounds.install'],
};

/** Asks a question and waits for the answer. A notification would not do, because it hides after a while. */
export function ask(question: string, ...answers: string[]): Thenable<string | undefined> {
  return vscode.window.showQuickPick(answers, { title: question, placeHolder: question, ignoreFocusOut: true });
}

/** Shows a failure, except one that the user has asked for by cancelling. */
export function showFailure(error: unknown): void {
  const failure = Failure.from(error);
  if (failure.kind === 'cancelled') return;
  const [button, command] = HELP[failure.kind] ?? ['Show Log', 'playgrounds.log'];
  const hint = failure.hint === '' ? '' : ` To help: ${failure.hint}.`;
  void vscode.window.showErrorMessage(`${sentence(failure.message)}${hint}`, button).then((chosen) => {
    if (chosen === button) return vscode.commands.executeCommand(command);
    return undefined;
  });
}

/** Runs an action and shows its failure. */
export function showingFailure(action: () => Promise<void>): void {
  action().catch(showFailure);
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}
