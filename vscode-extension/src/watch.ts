// The live list of playgrounds, from a `list --watch --json` process that runs only while a view or a window holds it.

import { ANSWER_MS, type Binary, type Run } from './binary';
import { Failure, describedFailure } from './failure';
import { readList, readWatchLine } from './json';
import { Live } from './live';
import { type Playground, runningFirst } from './playground';

/** The state of the list. */
export type Situation =
  | { kind: 'loading' }
  | { kind: 'known'; playgrounds: Playground[] }
  /** The reason why the list is out of date, and the playgrounds of the last one. */
  | { kind: 'failed'; failure: Failure; playgrounds: Playground[] };

export interface Disposable {
  dispose(): void;
}

/** The time limit of the first line, which the binary prints as soon as the platform has answered. */
const FIRST_LINE_MS = 30_000;

export class Watch {
  private now: Situation = { kind: 'loading' };
  private readonly listeners = new Set<() => void>();
  private readonly holders = new Set<{ figures: boolean }>();
  private readonly live: Live;

  constructor(
    private readonly binary: Binary,
    private readonly log: (line: string) => void,
  ) {
    const failed = (failure: Failure): boolean => {
      this.fail(failure);
      return true;
    };
    this.live = new Live(binary, { take: (text) => this.take(text), failed, log }, FIRST_LINE_MS);
  }

  get situation(): Situation {
    return this.now;
  }

  /** The playgrounds of the last list, running ones first. */
  get playgrounds(): Playground[] {
    return this.now.kind === 'loading' ? [] : this.now.playgrounds;
  }

  onDidChange(listener: () => void): Disposable {
    this.listeners.add(listener);
    return { dispose: () => this.listeners.delete(listener) };
  }

  /** Keeps the process running until the result is disposed. With `figures` the list also follows the traffic of connections. */
  hold(figures = false): Disposable {
    const holder = { figures };
    this.changeHolders(() => this.holders.add(holder));
    return {
      dispose: () => {
        this.changeHolders(() => this.holders.delete(holder));
      },
    };
  }

  /** Restarts the process; without a holder, lists the playgrounds once. */
  async refresh(): Promise<void> {
    this.binary.recheck();
    this.live.forgive();
    if (this.holders.size > 0) this.restart();
    else await this.fetch();
  }

  /** Lists the playgrounds once. Throws if that fails. */
  async fetch(options: Run = {}): Promise<Playground[]> {
    try {
      const found = runningFirst(await this.binary.ask(['list', '--json'], readList, { limit: ANSWER_MS, ...options }));
      this.become({ kind: 'known', playgrounds: found });
      return found;
    } catch (error) {
      const failure = Failure.from(error);
      if (failure.kind !== 'cancelled') this.fail(failure);
      throw failure;
    }
  }

  /** Brings the list up to date after an action, unless the process does that anyway. */
  async catchUp(): Promise<void> {
    if (this.holders.size === 0) await this.fetch().catch(() => undefined);
  }

  dispose(): void {
    this.holders.clear();
    this.live.stop();
    this.listeners.clear();
  }

  /** The command that serves all holders; undefined without a holder. */
  private command(): string[] | undefined {
    const holders = [...this.holders];
    if (holders.length === 0) return undefined;
    const figures = holders.some((one) => one.figures) ? ['--figures'] : [];
    return ['list', '--watch', '--json', ...figures];
  }

  private changeHolders(change: () => void): void {
    const before = String(this.command());
    change();
    if (String(this.command()) !== before) this.restart();
  }

  private restart(): void {
    const command = this.command();
    if (command) this.live.start(command);
    else this.live.stop();
  }

  private take(text: string): boolean {
    const line = readWatchLine(text);
    if (line.type === 'playgrounds') this.become({ kind: 'known', playgrounds: runningFirst(line.playgrounds) });
    else if (line.type === 'error') this.fail(describedFailure(line.kind, line.message, line.hint));
    return line.type === 'playgrounds';
  }

  private fail(failure: Failure): void {
    this.log(failure.text);
    this.become({ kind: 'failed', failure, playgrounds: this.playgrounds });
  }

  private become(situation: Situation): void {
    this.now = situation;
    for (const listener of this.listeners) listener();
  }
}
