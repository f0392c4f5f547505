// Starts a playground from the catalogue, or that of learning content by its page address.

import * as vscode from 'vscode';
import { Failure, sentence } from '../failure';
import * as format from '../format';
import { type CatalogEntry, readCatalog, readStarted } from '../json';
import { showingFailure, tellingSetups } from '../messages';
import { type Learning, type Playground, failedTasks } from '../playground';
import { withProgress } from '../progress';
import type { Services } from '../services';
import { contentAt, webAddress } from './address';
import { choose } from './conditions';
import { open, openNew, terminal } from './connect';

/** The option of `start` that says that the user trusts the author. */
const CONSENT = '--consent';

/** A choice of the list: an entry of the catalogue, or a page address. */
interface Choice extends vscode.QuickPickItem {
  title: string;
  /** Asks the questions before the start. Resolves to the options that answer them for the binary; undefined to start nothing. */
  prepare: () => Promise<string[] | undefined>;
  /** The argument of `start`. */
  name: string;
}

export async function start(services: Services): Promise<void> {
  const choice = await select(services);
  const options = await choice?.prepare();
  if (!choice || !options) return;
  const playground = await startChoice(services, choice, options);
  if (!playground) return;
  await services.watch.catchUp();
  offerToConnect(services, playground);
}

/** Starts the playground of a choice. If the binary needs the user's trust in an author, asks for it, and starts it then. */
export async function startChoice({ binary }: Services, { title, name }: Choice, options: string[]): Promise<Playground | undefined> {
  const begin = (...more: string[]): Promise<Playground> =>
    withProgress(`Starting ${title}`, ({ signal, report }) =>
      binary.ask(['start', name, '--json', ...options, ...more], readStarted, { signal, onProgress: tellingSetups(report) }),
    );
  try {
    return await begin();
  } catch (error) {
    const failure = Failure.from(error);
    // Nothing was started then. Only the platform knows the authors of a page.
    if (!failure.hint.includes(CONSENT) || options.includes(CONSENT)) throw error;
    return (await mayTrust(sentence(failure.message))) ? begin(CONSENT) : undefined;
  }
}

/** Offers the catalogue, and a page address that is pasted into its input. */
function select({ binary }: Services): Promise<Choice | undefined> {
  const list = vscode.window.createQuickPick<Choice>();
  list.placeholder = 'Select a playground to start, or paste the address of a challenge, a tutorial or a lesson';
  list.matchOnDescription = true;
  list.matchOnDetail = true;
  list.busy = true;
  let entries: Choice[] = [];
  let shown = entries;
  const show = (): void => {
    const address = webAddress(list.value);
    // New items would move the selection.
    if (!address && shown === entries) return;
    shown = address ? [choiceAt(address)] : entries;
    list.items = shown;
  };
  return new Promise<Choice | undefined>((resolve, reject) => {
    list.onDidChangeValue(show);
    list.onDidAccept(() => {
      // The list may not show a pasted address yet.
      const address = webAddress(list.value);
      const choice = address ? choiceAt(address) : list.selectedItems[0];
      if (choice) resolve(choice);
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
  const prepare = (): Promise<string[] | undefined> => (content ? mayBegin(content) : Promise.resolve([]));
  return { label: `Start ${title}`, detail: content ? address.href : '', alwaysShow: true, title, name: address.href, prepare };
}

/** Asks before an attempt at learning content begins. */
async function mayBegin({ kind, name }: Pick<Learning, 'kind' | 'name'>): Promise<string[] | undefined> {
  const yes = 'Begin Attempt';
  const question = `Begin an attempt at the ${kind} ${name}? Its page will show that you have started it, and its playground starts.`;
  return (await vscode.window.showWarningMessage(question, { modal: true }, yes)) === yes ? ['--yes'] : undefined;
}

export function choiceOf(entry: CatalogEntry): Choice {
  const prepare = async (): Promise<string[] | undefined> => {
    if (isThirdParty(entry) && !(await isTrusted(entry))) return undefined;
    const choices = await choose(entry.conditions);
    return choices && [...(isThirdParty(entry) ? [CONSENT] : []), ...choices];
  };
  return { ...itemOf(entry), title: titleOf(entry), name: entry.name, prepare };
}

function itemOf(entry: CatalogEntry): vscode.QuickPickItem {
  const description = [entry.name, entry.owner && `by ${entry.owner}`].filter(Boolean).join(' · ');
  return { label: titleOf(entry), description, detail: entry.description };
}

const isTrusted = (entry: CatalogEntry): Promise<boolean> => mayTrust(`${titleOf(entry)} is by ${entry.owner}, not by the platform.`);

/** Asks for the user's trust in an author. */
async function mayTrust(authorship: string): Promise<boolean> {
  const yes = 'Trust and Start';
  const question = `${authorship} Do you trust the author, who decides what runs in the playground?`;
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
