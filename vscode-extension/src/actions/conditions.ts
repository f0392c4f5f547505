// The choices of a start, which some entries of the catalogue offer.

import * as vscode from 'vscode';
import type { Condition } from '../json';

/** Asks for each choice that has a list or needs a value. Resolves to the options of `start`; undefined if the user cancels. */
export async function choose(conditions: Condition[]): Promise<string[] | undefined> {
  const options: string[] = [];
  for (const condition of conditions.filter((one) => one.options.length > 0 || !one.optional)) {
    const value = await (condition.options.length > 0 ? select(condition) : enter(condition));
    if (value === undefined) return undefined;
    options.push('-i', `${condition.key}=${value}`);
  }
  return options;
}

/** The default comes first. */
function select({ key, options, initial }: Condition): Thenable<string | undefined> {
  const ordered = [...options].sort((a, b) => Number(b === initial) - Number(a === initial));
  return vscode.window.showQuickPick(ordered, { placeHolder: `Select the value of "${key}"`, ignoreFocusOut: true });
}

function enter({ key, initial, placeholder, pattern }: Condition): Thenable<string | undefined> {
  return vscode.window.showInputBox({
    prompt: `Enter a value for "${key}"`,
    value: initial,
    placeHolder: placeholder,
    ignoreFocusOut: true,
    validateInput: (text) => (text === '' || !fits(text, pattern) ? `Enter a value${pattern === '' ? '' : ` that matches ${pattern}`}.` : undefined),
  });
}

/** True if a pattern cannot be read, because the binary and the platform check the value, too. */
function fits(text: string, pattern: string): boolean {
  try {
    return new RegExp(pattern, 'u').test(text);
  } catch {
    return true;
  }
}
