// Starts a playground from the catalogue, or that of learning content by its page address.

import * as vscode from 'vscode';
import * as format from '../format';
import { type CatalogEntry, readCatalog, readStarted } from '../json';
import { showingFailure } from '../messages';
import { type Learning, type Playground, failedTasks } from '../playground';
import { withProgress } from '../progress';
import type { Services } from '../services';
import { contentAt, webAddress } from './address';
import { open, openNew, terminal } from './connect';

/** A choice of the list: an entry of the catalogue, or a page address. */
interface Choice extends vscode.QuickPickItem {
  title: string;
  /** Asks the questions before the start. Resolves to the options that answer them for the binary; undefined if the user says no. */
  consent: () => Promise<string[] | undefined>;
  /** The argument of `start`. */
  name: string;
}

export async function start(services: Services): Promise<void> {
  const choice = await select(services);
  const consent = await choice?.consent();
  if (!choice || !consent) return;
  const playground = await withProgress(`Starting ${choice.title}`, ({ signal, report }) =>
    services.binary.ask(['start', choice.name, '--json', ...consent], readStarted, { signal, onProgress: report }),
  );
  await services.watch.catchUp();
  offerToConnect(services, playground);
}

/** Offers the catalogue, and a page address that is pasted into its input. */
function select({ binary }: Services): Promise<Choice | undefined> {
  const list = vscode.window.createQuickPick<Choice>();
  list.placeholder = 'Select a playground to start, or paste the address of a challenge, a tutorial or a lesson';
  list.matchOnDescription = true;
  list.matchOnDetail = true;
  list.busy = true;
  let entries: Choice[] = [];
  const show = (): void => {
    const address = webAddress(list.value);
    list.items = address ? [choiceAt(address)] : entries;
  };
  return new Promise<Choice | undefined>((resolve, reject) => {
    list.onDidChangeValue(show);
    list.onDidAccept(() => {
      resolve(list.selectedItems[0]);
    });
    list.onDidHide(() => {
      resolve(undefined);
    });
    binary.ask(['catalog', '--json'], readCatalog).then((all) => {
      entries = all.map(choiceOf);
      list.busy = false;
      show();
    }, reject);
    list.show();
  }).finally(() => {
    list.dispose();
  });
}

function choiceAt(address: URL): Choice {
  const content = contentAt(address);
  const title = content ? `the ${content.kind} ${content.name}` : address.href;
  const consent = (): Promise<string[] | undefined> => (content ? mayBegin(content) : Promise.resolve([]));
  return { label: `Start ${title}`, detail: content ? address.href : '', alwaysShow: true, title, name: address.href, consent };
}

/** Asks before an attempt at learning content begins. */
async function mayBegin({ kind, name }: Pick<Learning, 'kind' | 'name'>): Promise<string[] | undefined> {
  const yes = 'Begin Attempt';
  const question = `Begin an attempt at the ${kind} ${name}? Its page will show that you have started it, and its playground starts.`;
  return (await vscode.window.showWarningMessage(question, { modal: true }, yes)) === yes ? ['--yes'] : undefined;
}

function choiceOf(entry: CatalogEntry): Choice {
  const consent = async (): Promise<string[] | undefined> => {
    if (!isThirdParty(entry)) return [];
    return (await isTrusted(entry)) ? ['--consent'] : undefined;
  };
  return { ...itemOf(entry), title: titleOf(entry), name: entry.name, consent };
}

function itemOf(entry: CatalogEntry): vscode.QuickPickItem {
  const description = [entry.name, entry.owner && `by ${entry.owner}`].filter(Boolean).join(' · ');
  return { label: titleOf(entry), description, detail: entry.description };
}

/** Asks for the user's trust in the author. */
async function isTrusted(entry: CatalogEntry): Promise<boolean> {
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
