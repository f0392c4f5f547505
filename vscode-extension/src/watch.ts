// The live list of playgrounds, from a `list --watch --json` process that runs only while a view or a window holds it.

import { ANSWER_MS, type Binary, type Run, type Stream } from './binary';
import { Failure, NAME, describedFailure } from './failure';
import { readList, readWatchLine } from './json';
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
/** The pause before the process is restarted after it ended. It doubles each time, up to {@link LONGEST_PAUSE_MS}. */
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 60_000;

export class Watch {
  private now: Situation = { kind: 'loading' };
  private readonly listeners = new Set<() => void>();
  private readonly holders = new Set<{ figures: boolean }>();
  private stream: Stream | undefined;
  private timer: NodeJS.Timeout | undefined;
  private pause = FIRST_PAUSE_MS;

  constructor(
    private readonly binary: Binary,
    private readonly log: (line: string) => void,
  ) {}

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
    this.pause = FIRST_PAUSE_MS;
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
    this.stop();
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
    this.stop();
    this.start();
  }

  private start(): void {
    clearTimeout(this.timer);
    const command = this.command();
    if (!command) return;
    const stream: Stream = this.binary.stream(command, {
      line: (text) => {
        this.take(text, stream);
      },
      ended: (failure) => {
        this.failAndRestart(failure);
      },
    });
    this.stream = stream;
    this.timer = setTimeout(() => {
      stream.end();
      this.failAndRestart(new Failure('timeout', `${NAME} did not answer in time`, 'run it in a terminal to see why'));
    }, FIRST_LINE_MS);
  }

  private stop(): void {
    clearTimeout(this.timer);
    this.stream?.end();
    this.stream = undefined;
  }

  private take(text: string, stream: Stream): void {
    clearTimeout(this.timer);
    try {
      const line = readWatchLine(text);
      if (line.type === 'playgrounds') {
        this.pause = FIRST_PAUSE_MS;
        this.become({ kind: 'known', playgrounds: runningFirst(line.playgrounds) });
      } else if (line.type === 'error') {
        this.fail(describedFailure(line.kind, line.message, line.hint));
      }
    } catch {
      this.log(`cannot read: ${text.slice(0, 500)}`);
      stream.end();
      this.failAndRestart(new Failure('bad-output', `${NAME} printed output that this extension cannot read`, 'see the log'));
    }
  }

  /** Reports a failure of the process and restarts it after a pause. Without a usable binary it waits for a refresh instead. */
  private failAndRestart(failure: Failure): void {
    clearTimeout(this.timer);
    this.stream = undefined;
    this.fail(failure);
    if (failure.kind === 'no-binary' || failure.kind === 'old-binary') return;
    this.timer = setTimeout(() => {
      this.start();
    }, this.pause);
    this.pause = Math.min(this.pause * 2, LONGEST_PAUSE_MS);
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
