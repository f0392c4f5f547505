// The readable host names of playgrounds, as the last list had them. They are remembered, because a window on one of them has to
// know its playground before the first list.

import type * as vscode from 'vscode';
import type { Aliases } from './authority';
import type { Playground } from './playground';
import type { Disposable, Watch } from './watch';

const KEY = 'playgrounds.aliases';

export const knownAliases = (memory: vscode.Memento): Aliases => memory.get<Aliases>(KEY) ?? {};

export const aliasesOf = (all: Playground[]): Aliases => Object.fromEntries(all.filter((one) => one.alias !== '').map((one) => [one.alias, one.id]));

/** Remembers the names of each new list. */
export function rememberAliases(watch: Watch, memory: vscode.Memento): Disposable {
  return watch.onDidChange(() => {
    if (watch.situation.kind !== 'known') return;
    const now = aliasesOf(watch.playgrounds);
    if (JSON.stringify(now) !== JSON.stringify(knownAliases(memory))) void memory.update(KEY, now);
  });
}
