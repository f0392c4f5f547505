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
  /** The default values of settings that another extension declares. */
  known: {} as Record<string, unknown>,
  answer: undefined as string | undefined,
  asked: [] as string[],
  /** The buttons or list entries of the last question. */
  offered: [] as string[],
  /** Cancels all progress at once. */
  cancels: true,
  clipboard: '',
  /** Titles of the notifications that showed progress. */
  shown: [] as string[],
};

const ask = (message: string, ...buttons: unknown[]): Promise<string | undefined> => {
  user.asked.push(message);
  user.offered = buttons.filter((one) => typeof one === 'string');
  return Promise.resolve(user.answer);
};

type Item = string | { label: string };
const labelOf = (item: Item): string => (typeof item === 'string' ? item : item.label);

/** The last status bar item that was made. */
export const bar = { text: '', tooltip: '', name: '', shown: false };

export const window = {
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
  showInputBox: ({ prompt }: { prompt: string }) => ask(prompt),
  setStatusBarMessage: (message: string) => void user.asked.push(message),
  createStatusBarItem: () =>
    Object.assign(bar, {
      show: () => (bar.shown = true),
      hide: () => (bar.shown = false),
      dispose: () => undefined,
    }),
};

interface Folder {
  uri: { scheme: string; authority: string };
}

export const workspace = {
  workspaceFile: undefined as Folder['uri'] | undefined,
  workspaceFolders: undefined as Folder[] | undefined,
  getConfiguration: (section: string) => ({
    get: (key: string): unknown => user.settings[`${section}.${key}`] ?? user.known[`${section}.${key}`],
    inspect: (key: string) => ({
      defaultValue: user.known[`${section}.${key}`],
      globalValue: user.settings[`${section}.${key}`],
    }),
    update: (key: string, value: unknown) => {
      user.settings[`${section}.${key}`] = value;
      return Promise.resolve();
    },
  }),
};

export const commands = {
  ran: [] as unknown[][],
  executeCommand: (...command: unknown[]) => Promise.resolve(void commands.ran.push(command)),
};

export const Uri = {
  from: ({ scheme, authority, path }: { scheme: string; authority: string; path: string }) => `${scheme}://${authority}${path}`,
};

export const env: { remoteAuthority?: string; clipboard: unknown } = {
  clipboard: { writeText: (text: string) => Promise.resolve(void (user.clipboard = text)) },
};
