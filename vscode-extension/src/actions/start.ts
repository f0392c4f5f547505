// Starts a playground from the catalogue.

import * as vscode from 'vscode';
import * as format from '../format';
import { type CatalogEntry, readCatalog, readStarted } from '../json';
import { showingFailure } from '../messages';
import { type Playground, failedTasks } from '../playground';
import { withProgress } from '../progress';
import type { Services } from '../services';
import { open, openNew, terminal } from './connect';

export async function start(services: Services): Promise<void> {
  const entry = await selectEntry(services);
  if (!entry || !(await isTrusted(entry))) return;
  const consent = isThirdParty(entry) ? ['--consent'] : [];
  const playground = await withProgress(`Starting ${titleOf(entry)}`, ({ signal, report }) =>
    services.binary.ask(['start', entry.name, '--json', ...consent], readStarted, { signal, onProgress: report }),
  );
  await services.watch.catchUp();
  offerToConnect(services, playground);
}

async function selectEntry({ binary }: Services): Promise<CatalogEntry | undefined> {
  const entries = binary.ask(['catalog', '--json'], readCatalog);
  const items = entries.then((all) => all.map((entry) => ({ ...itemOf(entry), entry })));
  const options = { placeHolder: 'Select a playground to start', matchOnDescription: true, matchOnDetail: true };
  // If the catalogue cannot be read, the list closes without an answer, and the second promise rejects with the reason.
  const selected = await Promise.race([vscode.window.showQuickPick(items, options), entries.then(never)]);
  return selected?.entry;
}

function itemOf(entry: CatalogEntry): vscode.QuickPickItem {
  const description = [entry.name, entry.owner && `by ${entry.owner}`].filter(Boolean).join(' · ');
  return { label: titleOf(entry), description, detail: entry.description };
}

/** Asks for the user's trust in the author, unless the entry is the platform's own. */
async function isTrusted(entry: CatalogEntry): Promise<boolean> {
  if (!isThirdParty(entry)) return true;
  const yes = 'Trust and Start';
  const question = `Do you trust ${entry.owner}, the author of ${titleOf(entry)}? The author decides what runs in the playground.`;
  return (await vscode.window.showWarningMessage(question, { modal: true }, yes)) === yes;
}

function offerToConnect(services: Services, playground: Playground): void {
  const failed = failedTasks(playground).length > 0 ? `, but its ${format.state(playground)}` : '';
  const actions = { Open: open, 'Open in New Window': openNew, 'Open Terminal': terminal };
  showingFailure(async () => {
    const message = `${format.title(playground)} is running${failed}.`;
    const names = Object.keys(actions) as (keyof typeof actions)[];
    const chosen = await vscode.window.showInformationMessage(message, ...names);
    if (chosen) await actions[chosen](services, playground.id);
  });
}

const titleOf = (entry: CatalogEntry): string => entry.title || entry.name;
const isThirdParty = (entry: CatalogEntry): boolean => entry.owner !== '';
const never = (): Promise<never> => new Promise(() => undefined);
