// A fake of VS Code's API, as far as the unit tests need it. test/vscode has the tests in a real one.

export class EventEmitter<T> {
  private readonly listeners = new Set<(event: T) => void>();
  readonly event = (listener: (event: T) => void): { dispose: () => void } => {
    this.listeners.add(listener);
    return { dispose: () => this.listeners.delete(listener) };
  };
  fire(event: T): void {
    for (const listener of this.listeners) listener(event);
  }
  dispose(): void {
    this.listeners.clear();
  }
}

export class ThemeColor {
  constructor(readonly id: string) {}
}

export class ThemeIcon {
  constructor(
    readonly id: string,
    readonly color?: ThemeColor,
  ) {}
}

export enum TreeItemCollapsibleState {
  None,
  Collapsed,
  Expanded,
}

export class TreeItem {
  constructor(
    readonly label: string,
    readonly collapsibleState = TreeItemCollapsibleState.None,
  ) {}
}

export class MarkdownString {
  value = '';
  appendText(text: string): this {
    this.value += text;
    return this;
  }
  appendMarkdown(text: string): this {
    return this.appendText(text);
  }
  appendCodeblock(text: string): this {
    return this.appendText(text);
  }
}

export enum StatusBarAlignment {
  Left = 1,
}

export enum ProgressLocation {
  Notification = 15,
}

export enum ConfigurationTarget {
  Global = 1,
}

/** The user: settings, answers, and the questions that were asked. Tests change it. */
export const user = {
  settings: {} as Record<string, unknown>,
  /** The settings of a workspace, which may be someone else's. */
  workspace: {} as Record<string, unknown>,
  /** The default values of settings that another extension declares. */
  known: {} as Record<string, unknown>,
  answer: undefined as string | undefined,
  /** The answers to the next questions, before `answer`. */
  answers: [] as (string | undefined)[],
  /** The text in the input of the next list. */
  typed: '',
  /** The web addresses that were opened. */
  opened: [] as string[],
  asked: [] as string[],
  /** The details of modal questions. */
  details: [] as string[],
  /** The buttons or list entries of the last question. */
  offered: [] as string[],
  /** Cancels all progress at once. */
  cancels: true,
  clipboard: '',
  /** Titles of the notifications that showed progress. */
  shown: [] as string[],
  /** What checks the answers to the last questions for a text. */
  checks: [] as ((text: string) => string | undefined)[],
};

const ask = (message: string, ...buttons: unknown[]): Promise<string | undefined> => {
  user.asked.push(message);
  user.offered = buttons.filter((one) => typeof one === 'string');
  const options = buttons[0] as { detail?: string } | string | undefined;
  if (typeof options === 'object' && options.detail !== undefined) user.details.push(options.detail);
  return Promise.resolve(user.answers.length > 0 ? user.answers.shift() : user.answer);
};

/** A list that the user sees once it is complete: types, and then takes the entry that `user.answer` names. */
function createQuickPick(): unknown {
  const [value, accept, hide] = [new EventEmitter<string>(), new EventEmitter<void>(), new EventEmitter<void>()];
  const list = {
    placeholder: '',
    value: '',
    busy: false,
    items: [] as { label: string }[],
    selectedItems: [] as { label: string }[],
    onDidChangeValue: value.event,
    onDidAccept: accept.event,
    onDidHide: hide.event,
    show: () => void act(),
    dispose: () => {
      hide.fire();
    },
  };
  const act = async (): Promise<void> => {
    while (list.busy) await new Promise((resolve) => setTimeout(resolve, 5));
    list.value = user.typed;
    value.fire(user.typed);
    const answer = await ask(list.placeholder, ...list.items.map(labelOf));
    list.selectedItems = list.items.filter((item) => item.label === answer);
    if (list.selectedItems.length > 0) accept.fire();
    hide.fire();
  };
  return list;
}

type Item = string | { label: string };
const labelOf = (item: Item): string => (typeof item === 'string' ? item : item.label);

/** The terminals that were opened. */
export const terminals: { name: string; shellArgs: string[] }[] = [];

export enum UIKind {
  Desktop = 1,
  Web = 2,
}

/** The last status bar item that was made. */
export const bar = { text: '', tooltip: '', name: '', shown: false };

export const window = {
  state: { focused: true },
  showInformationMessage: ask,
  showWarningMessage: ask,
  showErrorMessage: ask,
  withProgress: (options: { title: string }, work: (progress: unknown, cancelled: unknown) => Promise<unknown>) => {
    user.shown.push(options.title);
    const onCancellationRequested = (cancel: () => void) => {
      if (user.cancels) setTimeout(cancel, 0);
      return { dispose: () => undefined };
    };
    return work({ report: () => undefined }, { onCancellationRequested });
  },
  showQuickPick: async (items: Item[] | Promise<Item[]>, { title, placeHolder }: { title?: string; placeHolder?: string }) => {
    const all = await items;
    const answer = await ask(title ?? placeHolder ?? '', ...all.map(labelOf));
    return all.find((one) => labelOf(one) === answer);
  },
  createQuickPick,
  showInputBox: ({ prompt, validateInput }: { prompt: string; validateInput?: (text: string) => string | undefined }) => {
    if (validateInput) user.checks.push(validateInput);
    return ask(prompt);
  },
  createTerminal: (options: { name: string; shellArgs: string[] }) => ({ show: () => void terminals.push(options) }),
  showTextDocument: (document: unknown) => Promise.resolve(void window.documents.push(String(document))),
  /** The documents that were shown. */
  documents: [] as string[],
  setStatusBarMessage: (message: string) => void user.asked.push(message),
  createStatusBarItem: () =>
    Object.assign(bar, {
      show: () => (bar.shown = true),
      hide: () => (bar.shown = false),
      dispose: () => undefined,
    }),
};

interface Folder {
  uri: { scheme: string; authority: string; path?: string };
}

export const workspace = {
  workspaceFile: undefined as Folder['uri'] | undefined,
  workspaceFolders: undefined as Folder[] | undefined,
  openTextDocument: (document: unknown) => Promise.resolve(typeof document === 'object' && document && 'content' in document ? document.content : document),
  getConfiguration: (section: string) => ({
    get: (key: string): unknown => user.workspace[`${section}.${key}`] ?? user.settings[`${section}.${key}`] ?? user.known[`${section}.${key}`],
    inspect: (key: string) => ({
      defaultValue: user.known[`${section}.${key}`],
      globalValue: user.settings[`${section}.${key}`],
      workspaceValue: user.workspace[`${section}.${key}`],
    }),
    update: (key: string, value: unknown) => {
      user.settings[`${section}.${key}`] = value;
      return Promise.resolve();
    },
  }),
};

export const commands = {
  ran: [] as unknown[][],
  /** The context keys. */
  contexts: {} as Record<string, unknown>,
  executeCommand: (...command: unknown[]) => {
    const [name, key, value] = command;
    if (name === 'setContext') commands.contexts[String(key)] = value;
    else commands.ran.push(command);
    return Promise.resolve();
  },
};

export const Uri = {
  parse: (address: string) => ({ scheme: /^[a-z]+(?=:)/.exec(address)?.[0] ?? '', toString: () => address }),
  from: ({ scheme, authority, path }: { scheme: string; authority: string; path: string }) => `${scheme}://${authority}${path}`,
};

/** The installed extensions. */
export const extensions = { all: [] as { id: string; packageJSON: { activationEvents?: string[] } }[] };

export const env: { remoteAuthority?: string; uiKind: UIKind; uriScheme: string; clipboard: unknown; openExternal: unknown } = {
  uiKind: UIKind.Web,
  uriScheme: 'vscode',
  openExternal: (uri: unknown) => Promise.resolve(void user.opened.push(String(uri))),
  clipboard: { writeText: (text: string) => Promise.resolve(void (user.clipboard = text)) },
};
