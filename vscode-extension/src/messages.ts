// Messages to the user: questions and failures.

import * as vscode from 'vscode';
import type { Command } from './commands';
import { Failure, type Kind } from './failure';

const STEPS: [button: string, command: Command] = ['Show Installation Steps', 'playgrounds.install'];

/** The buttons that help with a kind of failure, and their commands. */
const HELP: Partial<Record<Kind, [button: string, command: Command][]>> = {
  'not-logged-in': [['Log In', 'playgrounds.login']],
  'no-binary': [['Download', 'playgrounds.download'], STEPS],
  'no-release': [STEPS],
  'old-binary': [['Download', 'playgrounds.download'], STEPS],
};

/** Asks a question and waits for the answer. It is not a notification, because those disappear after a while. */
export function ask(question: string, ...answers: string[]): Thenable<string | undefined> {
  return vscode.window.showQuickPick(answers, { title: question, placeHolder: question, ignoreFocusOut: true });
}

/** Shows a failure, unless the user caused it by cancelling. */
export function showFailure(error: unknown): void {
  const failure = Failure.from(error);
  if (failure.kind === 'cancelled') return;
  const help = new Map(HELP[failure.kind] ?? [['Show Log', 'playgrounds.log']]);
  void vscode.window.showErrorMessage(failure.text, ...help.keys()).then((chosen) => {
    const command = help.get(chosen ?? '');
    return command && vscode.commands.executeCommand(command);
  });
}

/** Runs an action and shows its failure. */
export function showingFailure(action: () => Promise<void>): void {
  action().catch(showFailure);
}
