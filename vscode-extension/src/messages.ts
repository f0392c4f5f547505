// Messages to the user: questions and failures.

import * as vscode from 'vscode';
import type { Command } from './commands';
import { Failure, type Kind, sentence } from './failure';

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

/** The lines of the binary about a setup that is not as it should be. It is no failure of the start, so no error says it. */
const SETUP = /^the setup of .* failed: | was not set up: /;

/** Passes on the progress of a start, and shows what it says about setups, because progress disappears. */
export const tellingSetups = (report: (line: string) => void) => (line: string): void => {
  if (SETUP.test(line)) {
    const button = 'Show Log';
    void vscode.window.showWarningMessage(sentence(line), button).then((chosen) => chosen && vscode.commands.executeCommand('playgrounds.log'));
  }
  report(line);
};

/** Runs an action and shows its failure. */
export function showingFailure(action: () => Promise<void>): void {
  action().catch(showFailure);
}
